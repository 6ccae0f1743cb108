"""A new study file, zoomed in on where the answer of a study lies: it is valid as it stands, and says why it is so."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.export.zoomed_factor import (
    ZoomedFactor,
    is_numeric,
    zoom_choices,
    zoom_levels,
    zoom_range,
    zoom_values,
)
from analysis.findings import SCIENTIFIC, SURELY_WORSE, Arm, FactorFinding, Findings
from analysis.reading.runs import StudyRuns
from analysis.wording import level_text, listed, printable, words
from study.sections import Parameter
from study.spec import StudySpec, load_study, parse_study
from study.yaml_file import to_yaml
from trainable.atomic import write_atomically
from trainable.config import TrainConfig

FILE = "zoomed.yaml"
MAX_STUDY_NAME = 64
SUFFIX = "-zoom"


def export_zoomed(study_dir: Path, out: Path, runs: StudyRuns, findings: Findings) -> Path | None:
    """Writes `out/zoomed.yaml`.

    Args:
        study_dir: with the study's `study.yaml`.
        out: folder of the exports; made if it is not there.
        runs: of the study.
        findings: of the study.

    Returns:
        The file; None where there is no `study.yaml`, so that nothing says what the study was.
    """
    path = study_dir / "study.yaml"
    if not path.is_file():
        return None
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / FILE, zoomed_text(load_study(str(path), []), runs, findings))
    return out / FILE


def zoomed_text(spec: StudySpec, runs: StudyRuns, findings: Findings) -> str:
    """The new study file, its reasons as comments.

    Raises:
        InputError: never but by a defect of ours: the file is read back before anybody sees it.
    """
    arms = _kept_arms(findings)
    factors = {name: _zoomed(name, each, spec, arms, findings) for name, each in spec.parameters.items()}
    mapping = spec.to_mapping()
    search, confirm = _fresh_seeds(spec, runs)
    mapping["study"] = f"{spec.study[: MAX_STUDY_NAME - len(SUFFIX)]}{SUFFIX}"
    mapping["parameters"] = {name: factor.parameter for name, factor in factors.items()}
    mapping["search"] = {**mapping["search"], "seeds": search}
    mapping["confirm"] = {"seeds": confirm} if confirm else None
    parse_study(mapping, FILE)
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in _reasons(findings, factors)) + to_yaml(mapping)


def _zoomed(name: str, parameter: Parameter, spec: StudySpec, arms: list[Arm], findings: Findings) -> ZoomedFactor:
    finding = _finding(findings, name)
    if parameter.role == SCIENTIFIC:
        if finding is None:  # draws of points, of which none is better, and levels that never met
            return ZoomedFactor(parameter.model_dump(exclude_defaults=True), "as before")
        return zoom_levels(finding, _largest(name, spec))
    best = [arm.parameters[name] for arm in arms]
    if parameter.values is None:
        return zoom_range(name, parameter, best)
    if is_numeric(name, parameter.values) and not any(isinstance(value, str) for value in parameter.values):
        return zoom_values(name, parameter.values, best)
    return zoom_choices(parameter.values, best, finding)


def _finding(findings: Findings, name: str) -> FactorFinding | None:
    return next((factor for factor in findings.factors if factor.name == name), None)


def _kept_arms(findings: Findings) -> list[Arm]:
    """The arms of levels that may be enough; the recommended one is among them."""
    gone = {
        (factor.name, level.level)
        for factor in findings.scientific
        for level in factor.levels
        if level.verdict in SURELY_WORSE
    }
    kept = [arm for arm in findings.arms if gone.isdisjoint(arm.scientific.items())]
    return kept if findings.recommended in kept else [*kept, findings.recommended]


def _largest(name: str, spec: StudySpec) -> float:
    """No image has more points than pixels; other settings have their own rules."""
    if name != "points_per_image":
        return float("inf")
    varied = spec.parameters.get("image_size")
    sides = (varied and varied.values) or [spec.training.get("image_size", TrainConfig.image_size)]
    return float(min(int(side) for side in sides) ** 2)


def _fresh_seeds(spec: StudySpec, runs: StudyRuns) -> tuple[list[int], list[int]]:
    """As many seeds of exploration and of confirmation as before, none of which any run of the study had."""
    confirm = spec.confirm.seeds if spec.confirm else []
    seen = [int(seed) for table in (runs.trials, runs.ended_early) if "seed" in table for seed in table["seed"]]
    first = max([*spec.search.seeds, *confirm, *seen]) + 1
    numbers = list(range(first, first + len(spec.search.seeds) + len(confirm)))
    return numbers[: len(spec.search.seeds)], numbers[len(spec.search.seeds) :]


def _reasons(findings: Findings, factors: dict[str, ZoomedFactor]) -> Iterator[str]:
    yield f"Study {findings.study}, zoomed in on where its answer lies. It had found:"
    yield f"  {findings.headline}"
    yield "Edit what you know better, then: canopoint run THIS_FILE"
    yield ""
    for name, factor in factors.items():
        yield f"{words(name)}: {_shown(factor.parameter)}: {factor.why}."
    yield "Seeds: fresh ones, as the region was chosen by those that were used. It was chosen by the same images, too:"
    yield "  only other scenes tell how much that flatters."


def _shown(parameter: dict[str, Any]) -> str:
    if "values" in parameter:
        return listed(parameter["values"])
    return f"{level_text(parameter['min'])} to {level_text(parameter['max'])}"
