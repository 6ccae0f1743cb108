"""The runs of a W&B project over its API: the same WandbRuns as from run files (`wandb_runs.py`).

What the API writes differently is undone: it has text for NaN and infinities, whole floats lose their point, and
instead of an exit code there is a state.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.reading.history import History
from analysis.reading.run_cache import RunCache
from analysis.reading.run_table import READER
from analysis.reading.wandb_client import connected_api
from analysis.reading.wandb_runs import MAX_NESTING, WandbRun
from trainable.config import FLOOR_NAMES, InputError, TrainConfig

Say = Callable[[str], None]
logger = logging.getLogger(__name__)

FINDINGS_JOB = "canopoint-findings"
"""Job type of the runs that our own findings are written to (`report/wandb_report.py`): no runs of the study."""

NUM_READERS = 8
PAGE_RUNS, PAGE_STEPS = 100, 10_000
BATCH = 500  # runs between two words, and in one write of the cache
EXIT_CODES = {"finished": 0, "failed": 1, "killed": 1}
"""State -> exit code. The others have not ended, or nobody knows how: crashed means that W&B heard no more of it."""

NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""What JSON has no number for, as W&B's backend writes it."""

TERMS = ("metric", "mode", "at", "margin", "references")
"""Of an objective, in the order of a study file."""

SERVER_FILTERS = {"group": "group", "state": "state", "tag": "tags"}
"""Our name -> the API's. `config.X` is looked at here."""


def read_api_runs(
    project: str, filters: Mapping[str, str], cache: RunCache, say: Say = lambda line: None
) -> list[WandbRun]:
    """The runs of a project that fit every filter, sorted by run id.

    Args:
        project: `ENTITY/PROJECT`.
        filters: `group`, `state`, `tag` or `config.X` (X may have dots) -> what it must be.
        cache: where the history of a run is kept that W&B has not heard of since.
        say: is told how far it is, where there is no terminal.

    Raises:
        InputError: a name or filter makes no sense, there is no key or no such project, or W&B does not answer.
    """
    _check(project, filters)
    with connected_api(project) as api:
        known = {SERVER_FILTERS[name]: value for name, value in filters.items() if name in SERVER_FILTERS}
        found = api.runs(project, filters=known, per_page=PAGE_RUNS, lazy=False)
        own = [run for run in _listed(found) if run.job_type != FINDINGS_JOB and _fits(run.config, filters)]
        return sorted(_read_all(project, own, cache, say), key=lambda run: run.run_id)


def _check(project: str, filters: Mapping[str, str]) -> None:
    if len(parts := project.split("/")) != 2 or not all(parts):
        raise InputError(f"wandb://{project}: must name a project, as in wandb://ENTITY/PROJECT")
    for name in filters:
        if name not in SERVER_FILTERS and not re.fullmatch(r"config\..+", name):
            raise InputError(f"--filter {name}: no such filter; use group, state, tag or config.NAME")


def _listed(found: Any) -> Iterator[Any]:
    """The runs page by page, without those whose id could not be a file's name."""
    for run in found:
        if "/" in run.id or run.id.startswith("."):
            logger.warning("W&B run %r left out: no run id that W&B gives", run.id[:80])
            continue
        yield run


def _fits(config: Mapping[str, Any], filters: Mapping[str, str]) -> bool:
    """Whether a run's config has what every `config.X` asks for; numbers by value, the rest as text."""
    wanted = {name.removeprefix("config."): value for name, value in filters.items() if name.startswith("config.")}
    return all(_is_same(_inner(config, name.split(".")), value) for name, value in wanted.items())


def _inner(config: Any, keys: list[str]) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def _is_same(value: object, wanted: str) -> bool:
    if isinstance(value, bool) or value is None:
        return str(value).lower() == wanted.lower()
    try:
        return (isinstance(value, int | float) and value == float(wanted)) or str(value) == wanted
    except ValueError:
        return str(value) == wanted


def _read_all(project: str, listed: list[Any], cache: RunCache, say: Say) -> list[WandbRun]:
    """All runs; from the cache the histories of those that W&B has heard nothing of since."""
    wanted = {_key(project, run): _fingerprint(run) for run in listed}
    known = cache.load(wanted)
    missing = [run for run in listed if _key(project, run) not in known]
    read = [_convert(project, run, known[key].history) for run in listed if (key := _key(project, run)) in known]
    for start in range(0, len(missing), BATCH):
        batch = _read_batch(project, missing[start : start + BATCH])
        cache.add((str(run.path), run.fingerprint, run) for run in batch)
        read += batch
        say(f"read {len(read)} of {len(listed)} W&B runs")
    cache.tidy(wanted)
    return read


def _read_batch(project: str, listed: list[Any]) -> list[WandbRun]:
    """Some runs, several at once, as most of the time is waiting for W&B; a live bar where there is a terminal."""
    pool = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="wandb-api")
    try:
        found = pool.map(lambda run: _convert(project, run, _history(run)), listed)
        return list(tqdm(found, total=len(listed), unit="run", disable=not sys.stderr.isatty(), leave=False))
    finally:
        pool.shutdown(cancel_futures=True)


def _key(project: str, run: Any) -> str:
    return f"{project}/{run.id}"


def _fingerprint(run: Any) -> str:
    return f"{run.id} {_last_step(run)} {run.heartbeatAt} {run.state} {READER}"


def _last_step(run: Any) -> int:
    return int((run.historyKeys or {}).get("lastStep", -1))


def _history(run: Any) -> History:
    """The rows; those that W&B's client has on disk may be of an earlier state of the run."""
    rows = run.scan_history(page_size=PAGE_STEPS, use_cache=False) if _last_step(run) >= 0 else []
    return History.from_rows(_flat(row) for row in rows)


def _convert(project: str, run: Any, history: History) -> WandbRun:
    exit_code = EXIT_CODES.get(run.state)
    missing = {"no exit record": exit_code is None, "no rows": not history.num_rows}
    return WandbRun(
        run_id=run.id,
        group=run.group or "",
        name=run.name or "",
        config=_restored(_own(run.config)),
        history=history,
        summary={key: _number(value) for key, value in _own(run.summary_metrics).items()},
        exit_code=exit_code,
        path=Path(_key(project, run)),
        problems=tuple(problem for problem, holds in missing.items() if holds),
        fingerprint=_fingerprint(run),
    )


def _own(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """What is the user's."""
    return {key: value for key, value in mapping.items() if not key.startswith("_")}


def _flat(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """A row with one key, with dots, for a nested one; W&B's own keys, and what is nested too deep, are left out."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if not prefix and key.startswith("_"):
            continue
        if isinstance(value, dict) and depth < MAX_NESTING:
            flat |= _flat(value, f"{prefix}{key}.", depth + 1)
        elif value is not None:  # Parquet has a null wherever a row lacks what another one has
            flat[prefix + key] = _number(value)
    return flat


def _number(value: Any) -> Any:
    """What W&B's backend has no JSON number for, as the number that it is."""
    return NUMBERS.get(value, value) if isinstance(value, str) else value


def _restored(config: dict[str, Any]) -> dict[str, Any]:
    """A config of ours as its run file holds it.

    Over W&B's API whole floats are ints, empty mappings are gone, and mappings have no order; but levels are told by
    how they are written, and factors and floors in the order that they have.
    """
    training, data, objective = (_mapping(config.get(name)) for name in ("training", "data", "objective"))
    _make_floats(training, [each.name for each in fields(TrainConfig) if each.type is float])
    if objective:
        objective["references"] = _ordered(_mapping(objective.get("references")), ())
        _make_floats(objective["references"], list(objective["references"]))
        _make_floats(objective, ["margin"])
    order = [each.name for each in fields(TrainConfig)]
    for holder, name, names in ((config, "roles", order), (config, "objective", TERMS), (data, "floors", FLOOR_NAMES)):
        if isinstance(holder.get(name), dict):
            holder[name] = _ordered(holder[name], names)
    return config


def _make_floats(mapping: dict[str, Any], names: Sequence[str]) -> None:
    mapping.update({name: float(mapping[name]) for name in names if type(mapping.get(name)) is int})


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _ordered(mapping: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The mapping in the order of these names, followed by what has another one."""
    known = [name for name in names if name in mapping]
    return {name: mapping[name] for name in [*known, *sorted(mapping.keys() - set(known))]}
