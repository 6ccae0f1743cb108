"""A model card says what a careful user needs, with numbers worked by hand, and shows hostile names as they are."""

import re

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


def card(folder, runs, which=None):
    findings = find(runs)
    arm = findings.recommended if which is None else findings.arms[which]
    return model_card(folder, runs, findings, arm, "points_50")


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
    assert "| fingerprint | `f00d` |" in text
    assert "| to be known | images are stretched |" in text
    assert "| images | train: 60 images, test: 20 images |" in text
    assert "| scenes | a, b and c |" in text
    assert "Left out of the findings: demo-x (2 of 3 epochs)" in section(text, "Limits")
    assert "licence of the training images is not known" in section(text, "Licence")
    assert "canopoint train points_50/config.yaml" in text
    assert "no others" in section(text, "Limits")


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
