"""A model card says what a careful user needs, with numbers worked by hand, and shows hostile names as they are."""

import re
import sys
import types

import numpy as np
import pytest

from analysis.export.model_card import model_card
from analysis.find import find
from trainable.sealed import write_sealed

WINNERS = {(10, 0.001, 2.0): [0.5, 0.52, 0.48], (50, 0.001, 0.0): [0.62, 0.66, 0.67]}
DATA = {
    "source": "/data/forest",
    "fingerprint": "f00d",
    "annotations": "masks",
    "splits": {"train": {"num_images": 60, "scenes": ["a", "b"]}, "test": {"num_images": 20, "scenes": ["c"]}},
    "floors": {"all_forest": {"val/miou": 0.3, "test/miou": 0.28}, "coin_flip": {"test/miou": 0.64}},
    "warnings": ["images are stretched"],
}


def card(folder, runs, which=None, onnx=True):
    findings = find(runs)
    arm = findings.recommended if which is None else findings.arms[which]
    return model_card(folder, runs, findings, arm, "points_50", onnx=onnx)


def section(text, head):
    return text.split(f"## {head}\n\n")[1].split("\n\n## ")[0]


def test_it_reports_the_mean_with_its_interval_and_these_weights(tmp_path, make_study):
    text = card(tmp_path, make_study(confirm=WINNERS, data=DATA))
    # Mean of .62, .66, .67 is .65; their spread .026458, over sqrt(3), times t of 2 degrees of freedom 4.3027: .0657.
    assert "`test/miou` over 3 seeds: 0.650 [0.584, 0.716]; these weights: 0.620." in section(text, "What it reached")
    assert "the lowest of 3 confirmation seeds (100, 101, 102)" in text


def test_floors_are_compared_with_the_whole_interval(tmp_path, make_study):
    floors = section(card(tmp_path, make_study(confirm=WINNERS, data=DATA)), "Floors")
    assert '| calling every pixel "forest" | 0.280 | beats it |' in floors
    assert "| a coin flip for every pixel | 0.640 | undecided |" in floors  # within [0.584, 0.716]


def test_another_level_has_its_own_numbers_and_verdicts(tmp_path, make_study):
    text = card(tmp_path, make_study(confirm=WINNERS, data=DATA), which=0)
    assert "The best configuration of study demo at points per image 10:" in text
    assert "0.500 [0.450, 0.550]" in text
    assert "| a coin flip for every pixel | 0.640 | does NOT beat it |" in text


def test_explored_numbers_are_called_flattered(tmp_path, make_study):
    text = section(card(tmp_path, make_study(data=DATA)), "What it reached")
    assert "`val/miou` over 3 seeds: 0.710" in text
    assert "which flatters them" in text
    # .70, .71 and .72 spread by .01: half a width of 4.3027 x .01 / sqrt(3) = .0248.
    assert "| `val/miou` | 0.700 | 0.710 [0.685, 0.735] |" in text


def test_one_seed_claims_nothing(tmp_path, make_study):
    runs = make_study(cells={(50, 0.001, 0.0): [0.7]}, data=DATA)
    assert "| one seed cannot tell |" in section(card(tmp_path, runs), "Floors")


def test_images_are_described_as_the_trial_saw_them(tmp_path, make_study):
    runs = make_study(confirm=WINNERS, data=DATA)
    trial = tmp_path / "trials" / find(runs).recommended.trial_ids[0]
    trial.mkdir(parents=True)
    write_sealed(trial / "config.json", {"images": {"num_bands": 4, "scale": 0.25}})
    text = section(card(tmp_path, runs), "Input and output")
    assert "Bands: 4, 8 bits each" in text
    assert "scaled by 0.25 to squares of 256 pixels" in text
    assert "bytes divided by 255 and nothing else" in text


def test_data_limits_and_licence_are_there(tmp_path, make_study):
    text = card(tmp_path, make_study(confirm=WINNERS, data=DATA, excluded=[("demo-x", "2 of 3 epochs")]))
    assert "| Fingerprint | f00d |" in text
    assert "| To be known | images are stretched |" in text
    assert "| train | 60 | unknown | a, b |\n| test | 20 | unknown | c |" in text
    assert "Left out of the findings: demo-x (2 of 3 epochs)" in section(text, "Limits")
    assert "licence of the training images is not known" in section(text, "Licence")
    assert "canopoint train points_50/config.yaml" in text
    assert "trained on images of the train split above and on no others" in section(text, "Limits")


def test_a_split_of_many_scenes_does_not_fill_the_card(tmp_path, make_study):
    scenes = [f"scene-{number}" for number in range(2000)]
    text = card(tmp_path, make_study(data={**DATA, "splits": {"train": {"num_images": 4000, "scenes": scenes}}}))
    (row,) = [line for line in text.splitlines() if line.startswith("| train |")]
    assert len(row) < 500
    assert "scene-9" in row
    assert row.endswith("...; the study's report lists all |")


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_same_bits_are_promised_where_they_come_again(tmp_path, make_study, deterministic):
    runs = make_study(data=DATA)
    training = {trial: {**each, "deterministic": deterministic} for trial, each in runs.training.items()}
    use = section(card(tmp_path, make_study(data=DATA, training=training)), "Use")
    assert ("training again gives the same bits" in use) == deterministic
    assert ("need not give the same bits" in use) != deterministic


def test_these_weights_are_those_of_the_last_epoch_whatever_was_read(tmp_path, make_study):
    objective = {"metric": "val/miou", "mode": "max", "at": "best", "margin": 0.01}
    runs = make_study(data=DATA, objective=objective)
    epochs = runs.epochs.copy()
    epochs.loc[epochs["epoch"] == 2, "val/miou"] -= 0.2  # the best was the first
    text = section(card(tmp_path, make_study(data=DATA, objective=objective, epochs=epochs)), "What it reached")
    assert "0.710 [0.685, 0.735]; that is at the best epoch; these weights are those of the last epoch: 0.500." in text
    assert "| `val/miou` | 0.500 |" in text


def test_without_onnx_the_card_does_not_speak_of_it(tmp_path, make_study):
    runs = make_study(data=DATA)
    assert "onnx" not in card(tmp_path, runs, onnx=False).lower()
    with_it = card(tmp_path, runs)
    assert "| `model.onnx` |" in with_it
    assert "import onnxruntime" in with_it


@pytest.mark.parametrize("shape", [(64, 96, 3), (65, 100, 3), (1, 31, 3)])
def test_the_example_runs_as_it_stands_for_images_of_any_size(tmp_path, make_study, monkeypatch, shape):
    class Session:
        def __init__(self, path):
            assert path == "points_50/model.onnx"

        def run(self, outputs, inputs):
            images = inputs["images"]
            assert images.dtype == np.float32
            assert all(side % 32 == 0 and side >= 64 for side in images.shape[2:])
            return [np.stack([np.full_like(images[:, 0], 0.5), images[:, 0]], axis=1)]

    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    use = section(card(tmp_path, make_study(data=DATA)), "Use")
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    names = {"pixels": pixels}
    exec(use.split("```python\n")[1].split("```")[0], names)  # the card's own example
    np.testing.assert_array_equal(names["mask"], pixels[..., 0] > 127)


def test_the_card_does_not_tell_where_a_file_of_weights_lay(tmp_path, make_study):
    runs = make_study(data=DATA)
    path = "/home/me/secret/net-0123abcd.pth"
    training = {trial: {**each, "weights": path} for trial, each in runs.training.items()}
    text = card(tmp_path, make_study(data=DATA, training=training))
    assert "secret" not in text
    assert "The encoder started from `net-0123abcd.pth`." in text


def test_agreement_is_claimed_for_what_was_compared(tmp_path, make_study):
    text = section(card(tmp_path, make_study(data=DATA)), "Input and output")
    assert "held against our own on the made images that `manifest.json` counts" in text


def test_made_data_is_called_made(tmp_path, make_study):
    text = card(tmp_path, make_study(data={**DATA, "source": "synthetic"}))
    assert "made by canopoint itself" in section(text, "Licence")
    assert "Training again makes the same images." in text


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "a`b|c\n# d", "![x](http://evil/x.png)", "[a](javascript:b)", "a\x1b[2Jb"]
)
def test_hostile_names_stay_inert(tmp_path, make_study, hostile):
    data = {
        **DATA,
        "source": hostile,
        "warnings": [hostile],
        "splits": {hostile: {"num_images": 1, "scenes": [hostile]}},
    }
    plain = card(tmp_path, make_study(confirm=WINNERS, data=DATA))
    text = card(tmp_path, make_study(confirm=WINNERS, data=data, study=hostile, excluded=[(hostile, hostile)]))
    outside = re.sub(r"`[^`\n]*`", "", text)  # code spans show what they hold
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == [
        line for line in plain.splitlines() if line.startswith("#")
    ][1:]
    assert len(re.findall(r"(?<!\\)`", text)) % 2 == 0
