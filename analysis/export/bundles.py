"""Which models of a study are exported, under what names, and the texts that go with each.

One per scientific level, such as a point count; the recommended one is one of them, and its card says so. A study
without levels to compare has one model, `recommended`. The tensors are no business of the analysis:
`trainable/exported.py` adds them to these texts.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from analysis.export.best import training_text
from analysis.export.model_card import model_card, without_paths
from analysis.findings import Arm, Findings
from analysis.reading.runs import StudyRuns
from analysis.wording import level_text

CONFIG_FILE, CARD_FILE = "config.yaml", "model_card.md"
RECOMMENDED = "recommended"
SHORT_NAMES = {"points_per_image": "points"}
MAX_NAME = 100
"""Characters of a folder's name; levels may be paths."""


@dataclass(frozen=True)
class Bundle:
    """One model to be exported.

    Attributes:
        name: of its folder.
        trial_id: whose weights: the arm's at its lowest seed.
        texts: file name -> content.
        header: what the header of the weights says of the study.
        is_recommended: whether it is the one that the study recommends.
    """

    name: str
    trial_id: str
    texts: dict[str, str]
    header: dict[str, str]
    is_recommended: bool


def plan_bundles(study_dir: Path, runs: StudyRuns, findings: Findings, *, onnx: bool) -> list[Bundle]:
    """The model of every scientific level, as far as there are any; `onnx`: whether ONNX files are wanted, too."""
    arms: dict[str, Arm] = {}
    for arm in findings.arms if findings.recommended.scientific else [findings.recommended]:
        name = arm_name(arm)
        arms[name if name not in arms else f"{name}-{arm.trial_ids[0]}"] = arm
    return [_bundle(study_dir, runs, findings, name, arm, onnx=onnx) for name, arm in arms.items()]


def arm_name(arm: Arm) -> str:
    """A folder's name for a scientific level: `points_50`, `points_50-encoder_resnet18`; without one, `recommended`."""
    levels = without_paths(arm.scientific)
    parts = [f"{SHORT_NAMES.get(name, name)}_{level_text(level)}" for name, level in levels.items()]
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(parts) or RECOMMENDED)[:MAX_NAME]


def _bundle(study_dir: Path, runs: StudyRuns, findings: Findings, name: str, arm: Arm, *, onnx: bool) -> Bundle:
    texts = {
        CONFIG_FILE: training_text(study_dir, runs, findings, arm),
        CARD_FILE: model_card(study_dir, runs, findings, arm, name, onnx=onnx),
    }
    header = {
        "study": runs.study,
        "run_id": arm.run_ids[0],
        "data_fingerprint": str(runs.data.get("fingerprint", "unknown")),
    }
    return Bundle(name, arm.trial_ids[0], texts, header, arm == findings.recommended)
