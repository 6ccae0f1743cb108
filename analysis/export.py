"""The recommended configuration as a file: `canopoint train` runs it, and a new study can start from it."""

import json
from pathlib import Path
from typing import Any

from analysis.findings import Findings
from analysis.runs import StudyRuns
from analysis.wording import findings_text, printable
from study.yaml_file import to_yaml
from trainable.atomic import write_atomically
from trainable.config import InputError


def export_best(study_dir: Path, runs: StudyRuns, findings: Findings) -> Path:
    """Writes `analysis/best.yaml`: the recommended cell at its lowest seed, and what training it again must give.

    The lowest seed, not the best one: the luckiest of several seeds reads better than it will ever train again.

    Returns:
        The file's path; its keys are `data`, `training` and `reproduces`.
    """
    cell = findings.cell(findings.recommended.parameters)
    trial_id, run_id = cell.trial_ids[0], cell.run_ids[0]  # findings.seeds ascend
    trials = runs.trials[runs.trials["trial_id"] == trial_id]
    reproduces = {
        "study": runs.study,
        "trial_id": trial_id,
        "run_id": run_id,
        "metric": runs.objective["metric"],
        "value": float(trials["objective"].iloc[0]),
        **_result_hash(study_dir, trial_id),
    }
    content = {"data": runs.data_config, "training": runs.training[trial_id], "reproduces": reproduces}
    path = study_dir / "analysis" / "best.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _comments(findings) + to_yaml(content))
    return path


def _comments(findings: Findings) -> str:
    """The findings as YAML comments. Names in them may hold anything: nothing may end a comment or not be YAML."""
    lines = [
        f"The recommended configuration of study {findings.study},",
        f"at seed {findings.seeds[0]}: the lowest seed, which need not be the luckiest.",
        "",
        *findings_text(findings).splitlines(),
    ]
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)


def _result_hash(study_dir: Path, trial_id: str) -> dict[str, str]:
    """The hash of the trial's result, where its directory is at hand: retraining must give the very same."""
    path = study_dir / "trials" / trial_id / "result.json"
    if not path.is_file():
        return {}
    try:
        result: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); run the study again to repair the trial") from error
    sha256 = result.get("result_sha256") if isinstance(result, dict) else None
    return {"result_sha256": sha256} if isinstance(sha256, str) else {}
