"""Where a study needs more seeds: the scientific levels that its findings leave undecided, and the one they face."""

import json
from itertools import count, islice
from pathlib import Path
from typing import Any

from cluster.preparation import prepare
from study.design import Cell, level_name, list_levels
from study.ledger import read_ledger
from study.spec import StudySpec
from trainable.config import InputError

MAX_SEEDS = 1000


def undecided_levels(spec: StudySpec, num_seeds: int) -> tuple[dict[str, Cell], list[int]]:
    """The levels to be given further confirmation seeds, by name, and the seeds; none where all is decided.

    The levels that an undecided one may yet lose to are among them: a difference needs both.

    Raises:
        InputError: the study has no confirmation to extend, no findings yet, or an impossible number is asked for.
    """
    if not spec.confirm:
        raise InputError(f"{spec.study}: has no confirm section to extend; add confirm: {{seeds: [100, 101, 102]}}")
    if not 1 <= num_seeds <= MAX_SEEDS:
        raise InputError(f"--seeds: must be 1 to {MAX_SEEDS}, got {num_seeds}")
    if num_missing := prepare(spec).plan().num_missing:
        raise InputError(
            f"{spec.study}: {num_missing} trials are still to run; canopoint run continues them, then extend"
        )
    findings = _read_findings(spec.folder / "analysis" / "findings.json")
    wanted: dict[str, set[Any]] = {}
    for factor in findings["factors"]:
        if factor["role"] == "scientific":
            undecided = [each for each in factor["levels"] if each["verdict"] == "undecided"]
            faced = {rival for each in undecided for rival in [*each["rivals"], factor["best_level"]]}
            wanted[factor["name"]] = {each["level"] for each in undecided} | faced
    levels = [level for level in list_levels(spec) if any(level[name] in wanted.get(name, set()) for name in level)]
    return {level_name(level): level for level in levels}, _fresh_seeds(spec, num_seeds)


def _fresh_seeds(spec: StudySpec, num_seeds: int) -> list[int]:
    """The next numbers that no trial of the study has as its seed."""
    extended = [seed for event in read_ledger(spec.folder) if event["event"] == "extended" for seed in event["seeds"]]
    confirmed = spec.confirm.seeds if spec.confirm else []
    used = {*spec.search.seeds, *confirmed, *extended}
    return list(islice((seed for seed in count(max([*confirmed, *extended]) + 1) if seed not in used), num_seeds))


def _read_findings(path: Path) -> dict[str, Any]:
    """What the analysis wrote last, as far as it is needed here."""
    if not path.is_file():
        raise InputError(f"{path}: no findings yet; run the study first")
    try:
        findings: dict[str, Any] = json.loads(path.read_bytes())
        for factor in findings["factors"]:
            _ = factor["name"], factor["role"], factor["best_level"]
            _ = [(level["level"], level["verdict"], list(level["rivals"])) for level in factor["levels"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error!r:.80}); write it anew with canopoint analyze") from error
    return findings
