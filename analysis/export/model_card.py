"""The model card of an exported model: what it is, what it takes, what it reached and where it must not be trusted.

Names in it come out of run files and data folders, which may be anyone's: all of them are escaped.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.export.best import arm_title
from analysis.find import find_floors
from analysis.findings import Arm, Findings, FloorFinding
from analysis.markdown_text import markdown_text as _escaped
from analysis.reading.runs import StudyRuns
from analysis.reading.study_files import read_study_json
from analysis.report.protocol import data_rows, split_rows
from analysis.statistics import mean_interval
from analysis.wording import FLOORS, counted, level_text, settings_text, words

ONNX_FILE = "model.onnx"
FILES = (
    ("config.yaml", "data and settings of the run; `canopoint train` reads it"),
    ("weights.safetensors", "the tensors; its header says how to build the model again; `canopoint predict` reads it"),
    ("model.pt2", "a program for `torch.export.load`"),
    (ONNX_FILE, "the same for ONNX runtimes"),
    ("manifest.json", "checksums of all files, and how the graphs' masks compare with our own"),
)
LIMITS = (
    "It was trained on images of the train split above and on no others: other regions, seasons, sensors or"
    " resolutions are outside of what was measured, and its intervals speak of other points, starting weights and image"
    " orders on these very images. Evaluate it on labelled images of your own before you rely on it.",
    "It tells forest from everything else. It knows no species, no single trees and no heights, and a mask says"
    " nothing of how sure it is.",
    "Its truth is the masks (or points) of its data, their mistakes included.",
)
METRICS = (
    "miou", "iou_forest", "iou_background", "dice", "precision", "recall", "accuracy", "boundary_f1", "image_miou",
    "ece", "nll",
)  # fmt: skip
"""Of all that is measured, what a user of a model asks about."""

MAX_SCENES_TEXT = 300
"""Characters that the names of a split's scenes take at most; a study may have thousands."""

ONNX_USE = """\
With onnxruntime and numpy alone, for `pixels` of (H, W, bands) uint8:

```python
import numpy
import onnxruntime

height, width = pixels.shape[:2]
frame = [(0, max(-(-side // 32) * 32, 64) - side) for side in (height, width)]
framed = numpy.pad(pixels, [*frame, (0, 0)], mode="symmetric")
images = framed.transpose(2, 0, 1)[None].astype("float32") / 255
session = onnxruntime.InferenceSession("NAME/model.onnx")
logits = session.run(["logits"], {"images": images})[0]
mask = (logits[0, 1] > logits[0, 0])[:height, :width]
```"""
SAME_BITS = "On the same kind of processor and with the same version of torch, training again gives the same bits."
OTHER_BITS = "It was trained without `deterministic: true`: training again need not give the same bits."
MADE_LICENCE = "The images were made by canopoint itself, and nobody holds rights in them."
DATA_LICENCE = (
    "The licence of the training images is not known to canopoint: whoever passes the weights on must see that it"
    " allows that."
)


def model_card(study_dir: Path, runs: StudyRuns, findings: Findings, arm: Arm, name: str, *, onnx: bool) -> str:
    """The card of an arm's model at its lowest seed, as Markdown.

    Args:
        study_dir: whose trials may be at hand.
        runs: the study's.
        findings: of them.
        arm: whose model it is.
        name: of the folder that it lies in.
        onnx: whether `model.onnx` lies there, too.
    """
    training = without_paths(runs.training[arm.trial_ids[0]])
    files = [(_code(file), text) for file, text in FILES if onnx or file != ONNX_FILE]
    sections = [
        ("", _what_it_is(findings, arm, training)),
        ("Use", _use(runs, training, name, onnx=onnx)),
        ("Input and output", _bullets(_interface(study_dir, runs, arm, training))),
        ("What it reached", _reached(runs, findings, arm)),
        ("Floors", _floors(runs, findings, arm)),
        ("Data", _data(runs)),
        ("Training", _table(("setting", "value"), [(_code(key), _code(training[key])) for key in training])),
        ("Read with care", _bullets(_escaped(caveat.text) for caveat in findings.caveats)),
        ("Limits", _bullets([*LIMITS, _left_out(findings)])),
        ("Licence", _licence(runs, training)),
        ("Files", _table(("file", "what it is"), files)),
    ]
    title = f"# Forest segmentation: {_escaped(findings.study)}, {_escaped(name)}"
    return "\n\n".join([title, *(f"## {head}\n\n{text}" if head else text for head, text in sections)]) + "\n"


def _what_it_is(findings: Findings, arm: Arm, training: dict[str, Any]) -> str:
    phase = "confirmation" if findings.is_confirmed else "exploration"
    return (
        f"{_escaped(arm_title(findings, arm))}: {_escaped(settings_text(without_paths(arm.parameters)))}. A U-Net on"
        f" {_code(training.get('encoder', 'unknown'))} that calls every pixel of an aerial image forest or background."
        f" These are the weights of seed {arm.seeds[0]}, the lowest of {counted(len(arm.seeds), f'{phase} seed')}"
        f" ({', '.join(map(str, arm.seeds))}): none was chosen for its luck."
    )


def _use(runs: StudyRuns, training: dict[str, Any], name: str, *, onnx: bool) -> str:
    source = _code(runs.data.get("source", "unknown"))
    images = (
        "Training again makes the same images." if _is_made(runs) else f"Training again needs the images ({source})."
    )
    gpu = " It wants a GPU (`device: cuda`)." if training.get("device") == "cuda" else ""
    bits = SAME_BITS if training.get("deterministic") is True else OTHER_BITS
    commands = (
        f"From the folder that holds `{name}`:\n\n"
        f"```\ncanopoint predict {name} IMAGE... --out masks     # masks of images of any size\n"
        f"canopoint train {name}/config.yaml                # trains it again, from the data\n```"
    )
    return "\n\n".join([commands, *([ONNX_USE.replace("NAME", name)] if onnx else []), f"{images}{gpu} {bits}"])


def _is_made(runs: StudyRuns) -> bool:
    return bool(runs.data.get("source") == "synthetic")


def _interface(study_dir: Path, runs: StudyRuns, arm: Arm, training: dict[str, Any]) -> list[str]:
    images = _images(study_dir, arm.trial_ids[0])
    num_bands = images.get("num_bands", runs.data.get("num_bands", "unknown"))
    side = training.get("image_size", "unknown")
    return [
        f"Bands: {_escaped(str(num_bands))}, 8 bits each, in the order of the training images.",
        f"Ground: as large as in training. Image files of the study were scaled by"
        f" {_escaped(level_text(images.get('scale', 'unknown')))} to squares of {_escaped(str(side))} pixels; scale"
        f" other images by the same factor (`canopoint predict` does), and cut large ones into overlapping tiles of"
        f" {_escaped(str(side))} pixels.",
        "Graphs take `images`, (B, bands, H, W) float32 in [0, 1]: bytes divided by 255 and nothing else. The"
        " normalisation by mean and standard deviation of each band is inside. B is any number; H and W are multiples"
        " of 32, from 64 on.",
        "They give `logits`, (B, 2, H, W) float32: background, forest. The mask is forest where the second is the"
        " larger; softmax gives probabilities.",
        "Numbers are float32 throughout, as `canopoint predict` computes; training may have used bfloat16. On a CPU the"
        " graphs' masks were held against our own on the made images that `manifest.json` counts, and were equal in"
        " every pixel but where rounding decides between two equal logits; it counts those, too.",
    ]


def _images(study_dir: Path, trial_id: str) -> dict[str, Any]:
    """Bands and scale, as the trial noted them; nothing where its directory is not at hand."""
    path = study_dir / "trials" / trial_id / "config.json"
    described = read_study_json(path, "run the study again to repair the trial") or {}
    images = described.get("images")
    return images if isinstance(images, dict) else {}


def _reached(runs: StudyRuns, findings: Findings, arm: Arm) -> str:
    split = "test" if findings.is_confirmed else "val"
    text = (
        f"{_code(findings.metric)} over {counted(arm.value.num_seeds, 'seed')}: {arm.value.text()};"
        f" {_these_weights(runs, findings, arm)}."
    )
    if not findings.is_confirmed:
        text += " Settings were chosen on the same validation images, which flatters them a little."
    rows = [
        (_code(metric), f"{values[0]:.3f}", mean_interval(values).text())
        for metric, values in _last_epoch(runs, arm, [f"{split}/{name}" for name in METRICS]).items()
    ]
    head = (
        "after the last epoch",
        "these weights",
        f"mean over {counted(len(arm.seeds), 'seed')} [95 %, each by itself]",
    )
    return f"{text}\n\n{_table(head, rows)}" if rows else text


def _these_weights(runs: StudyRuns, findings: Findings, arm: Arm) -> str:
    """What the exported weights reach: they are those of the last epoch, whichever epoch the objective is read at."""
    if findings.is_confirmed or runs.objective["at"] == "last":
        return f"these weights: {arm.readings[0]:.3f}"
    last = _last_epoch(runs, arm, [findings.metric])[findings.metric][0]
    return f"that is at the best epoch; these weights are those of the last epoch: {last:.3f}"


def _last_epoch(runs: StudyRuns, arm: Arm, metrics: list[str]) -> dict[str, list[float]]:
    """Metric -> its values after the last epoch, seed by seed; of metrics that every seed has."""
    curves = runs.curves(metrics, arm.run_ids)
    last = curves.loc[curves.groupby("run_id")["epoch"].idxmax()].set_index("run_id").loc[arm.run_ids]
    numbers = last.drop(columns="epoch").astype(float)
    return {str(name): column.tolist() for name, column in numbers.items() if np.isfinite(column).all()}


def _floors(runs: StudyRuns, findings: Findings, arm: Arm) -> str:
    """What a rule without any network reaches, and whether this arm is worth more."""
    rows = [
        (_escaped(FLOORS.get(each.name, words(each.name))), f"{each.floor:.3f}", _floor_verdict(each))
        for each in find_floors(runs, findings.metric, arm)
    ]
    if not rows:
        return "None is known."
    return _table(("rule or known result", _code(findings.metric), "this configuration"), rows)


def _floor_verdict(floor: FloorFinding) -> str:
    if floor.value.low is None:
        return "one seed cannot tell"
    return {"beats": "beats it", "does not beat": "does NOT beat it"}.get(floor.verdict, floor.verdict)


def _data(runs: StudyRuns) -> str:
    """The images, and which of them each split holds."""
    rows = [(_escaped(label), _escaped(text)) for label, text in data_rows(runs)]
    splits = [[_escaped(_bounded(text)) for text in row] for row in split_rows(runs)]
    tables = [_table(("", ""), rows)]
    if splits:
        tables.append(_table(("split", "images", "forest", "scenes"), splits))
    return "\n\n".join(tables)


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_SCENES_TEXT else f"{text[:MAX_SCENES_TEXT]}...; the study's report lists all"


def _left_out(findings: Findings) -> str:
    if not findings.excluded:
        return "Every run of the study entered the findings."
    reasons = [f"{run_id} ({reason})" for run_id, reason in findings.excluded[:5]]
    more = f" and {len(findings.excluded) - 5} more" if len(findings.excluded) > 5 else ""
    return f"Left out of the findings: {_escaped(', '.join(reasons))}{more}; the study's report lists all."


def _licence(runs: StudyRuns, training: dict[str, Any]) -> str:
    start = {
        "none": "The weights started from random numbers.",
        "imagenet": "The encoder started from torchvision's ImageNet weights (BSD-3-Clause); ImageNet's own terms are"
        " for research.",
    }
    origin = start.get(str(training.get("weights")), f"The encoder started from {_code(training.get('weights'))}.")
    data = MADE_LICENCE if _is_made(runs) else DATA_LICENCE
    return f"{data} {origin} Canopoint's code, by which the model is built, is under the MIT licence."


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, with the name alone of a file of initial weights: where it lay is nobody's business."""
    weights = settings.get("weights")
    return {**settings, "weights": Path(weights).name} if isinstance(weights, str) else dict(settings)


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts) or "- Nothing."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(value: object) -> str:
    """A value between backticks, on one line; nothing in it ends them or a table's cell."""
    text = level_text(value) if isinstance(value, bool | int | float) else str(value)
    plain = "".join(letter if letter.isprintable() and letter not in "`|" else " " for letter in text).strip()
    return f"`{plain}`" if plain else "none"
