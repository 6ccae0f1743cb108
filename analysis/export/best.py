"""The recommended configuration as a file: `canopoint train` runs it, and a new study can start from it."""

from pathlib import Path

from analysis.findings import Arm, Findings
from analysis.reading.runs import StudyRuns
from analysis.reading.study_files import read_study_json
from analysis.wording import findings_text, printable, settings_text
from study.yaml_file import to_yaml
from trainable.atomic import write_atomically


def export_best(study_dir: Path, runs: StudyRuns, findings: Findings) -> Path:
    """Writes `analysis/best.yaml`: the recommended arm's training file.

    Returns:
        The file's path; its keys are `data`, `training` and `reproduces`.
    """
    path = study_dir / "analysis" / "best.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, training_text(study_dir, runs, findings, findings.recommended))
    return path


def training_text(study_dir: Path, runs: StudyRuns, findings: Findings, arm: Arm) -> str:
    """What `canopoint train` reads: an arm at its lowest seed, and what training it again must give.

    The lowest seed, not the best one: the luckiest of several seeds reads better than it will ever train again.
    """
    trial_id = arm.trial_ids[0]  # its seeds ascend
    reproduces = {
        "study": runs.study,
        "trial_id": trial_id,
        "run_id": arm.run_ids[0],
        "metric": findings.metric,
        "value": arm.readings[0],
        **_result_hash(study_dir, trial_id),
    }
    content = {"data": runs.data_config, "training": runs.training[trial_id], "reproduces": reproduces}
    return _comments(findings, arm) + to_yaml(content)


def arm_title(findings: Findings, arm: Arm) -> str:
    """What an arm is in its study."""
    if arm == findings.recommended:
        return f"The recommended configuration of study {findings.study}"
    return f"The best configuration of study {findings.study} at {settings_text(arm.scientific)}"


def _comments(findings: Findings, arm: Arm) -> str:
    """The findings as YAML comments. Names in them may hold anything: nothing may end a comment or not be YAML."""
    phase = "confirmation" if findings.is_confirmed else "exploration"
    lines = [
        f"{arm_title(findings, arm)},",
        f"at seed {arm.seeds[0]}: its lowest {phase} seed, which need not be the luckiest.",
        "",
        *findings_text(findings).splitlines(),
    ]
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)


def _result_hash(study_dir: Path, trial_id: str) -> dict[str, str]:
    """The hash of the trial's result, where its directory is at hand: retraining must give the very same."""
    path = study_dir / "trials" / trial_id / "result.json"
    result = read_study_json(path, "run the study again to repair the trial")
    sha256 = result.get("result_sha256") if isinstance(result, dict) else None
    return {"result_sha256": sha256} if isinstance(sha256, str) else {}
