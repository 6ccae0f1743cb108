"""Where the runs of an analysis come from, and where its results go."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from analysis.reading.column_map import ColumnMap
from analysis.reading.run_cache import RunCache
from analysis.reading.run_folder import read_runs
from analysis.reading.study_terms import OWN_FOLDER
from analysis.reading.wandb_runs import WandbRun
from trainable.atomic import nearest_existing
from trainable.config import InputError

ONLINE = "wandb://"


@dataclass(frozen=True)
class Source:
    """What is read.

    Attributes:
        study_dir: the folder whose `wandb` is read, and whose `study.yaml` and trials are at hand; None online.
        out: results go to `out/analysis`; for a folder, the folder itself unless another was named.
        project: `ENTITY/PROJECT` of W&B; empty for a folder.
        filters: which of the project's runs are meant (`wandb_api.py`).
        mapping: how runs of other projects are to be read; None for our own.
    """

    study_dir: Path | None
    out: Path
    project: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    mapping: ColumnMap | None = None

    @property
    def place(self) -> str:
        """Names it in messages."""
        return f"{ONLINE}{self.project}" if self.study_dir is None else str(self.study_dir)

    @property
    def name(self) -> str:
        """What its study is likely to be called."""
        if self.study_dir is not None:
            return self.study_dir.resolve().name
        return self.filters.get("group") or self.project.rpartition("/")[2]

    @property
    def none_remedy(self) -> str:
        """What to do where it holds no runs."""
        if self.study_dir is None:
            return f" that fit {dict(self.filters)}; check the project and --filter" if self.filters else ""
        return f" in {self.study_dir / 'wandb'}; run `canopoint run STUDY` first"

    @property
    def several_remedy(self) -> str:
        """What to do where it holds runs of several studies."""
        return OWN_FOLDER if self.study_dir else "choose one with --filter group=STUDY"

    @property
    def incomplete_remedy(self) -> str:
        """What to do where none of its runs is complete."""
        return "check --map" if self.mapping else "run `canopoint run STUDY` again to complete them"

    @property
    def trials_dir(self) -> Path | None:
        """The folder with the trials' own files; None where there are only W&B's runs."""
        return None if self.mapping else self.study_dir

    @property
    def cache_dir(self) -> Path | None:
        """Where what was read is kept; safe to delete. None where nothing can be written, or a link leads elsewhere."""
        folder = self.out / "analysis" / ".cache"
        existing = nearest_existing(folder)
        is_own = not any(path.is_symlink() for path in (folder, folder.parent))
        return folder if is_own and existing.is_dir() and os.access(existing, os.W_OK) else None

    def read(self) -> list[WandbRun]:
        """Its runs, by run id: from the cache what has not changed since.

        Raises:
            InputError: something cannot be read.
        """
        cache = RunCache(self.cache_dir)
        if self.study_dir is not None:
            return read_runs(self.study_dir / "wandb", cache)
        from analysis.reading.wandb_api import read_api_runs  # W&B takes a third of a second, which folders spare

        return read_api_runs(self.project, self.filters, cache)


def find_source(
    place: str | Path, filters: Iterable[str] = (), columns: Iterable[str] = (), out: Path | None = None
) -> Source:
    """From what is typed.

    Args:
        place: a folder, or `wandb://ENTITY/PROJECT`.
        filters: `key=value`, of a project alone.
        columns: `name=column`, for runs of other projects.
        out: where results go; by default the folder, and for a project `./<project>-<group>`.

    Raises:
        InputError: something of it makes no sense.
    """
    mapping = ColumnMap.parse(columns) if columns else None
    wanted: dict[str, str] = {}
    for key, value in map(_parsed, filters):
        if key in wanted:
            raise InputError(f"--filter {key}={value}: {key} is {wanted[key]} already; leave one of them out")
        wanted[key] = value
    if not str(place).startswith(ONLINE):
        if wanted:
            raise InputError(f"--filter: is for {ONLINE}ENTITY/PROJECT, but {place} is a folder; leave it out")
        if not Path(place).is_dir():
            what = "is a file; name the study's folder" if Path(place).exists() else "no such folder"
            raise InputError(f"{place}: {what}")
        return Source(Path(place), out or Path(place), mapping=mapping)
    project = str(place).removeprefix(ONLINE)
    name = "-".join([project.rpartition("/")[2], *([wanted["group"]] if "group" in wanted else [])])
    return Source(None, out or Path(name.replace("/", "-")), project, wanted, mapping)


def _parsed(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise InputError(f"--filter {text}: must be key=value, as in group=demo")
    return key, value
