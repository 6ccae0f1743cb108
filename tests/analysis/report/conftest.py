import hashlib
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.find import find
from analysis.findings import Claim, Topic
from analysis.reading.runs import StudyRuns
from analysis.report.write import write_report
from analysis.statistics import mean_interval
from trainable.sealed import write_sealed

SCRIPT = "</script><script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
FORMULA = '=HYPERLINK("http://evil.example","x")'
ROLES = {"points_per_image": "scientific", "learning_rate": "nuisance", "focal_gamma": "nuisance"}


class Page(HTMLParser):
    """Collects a page's elements, attributes and text, as a browser's parser would see them; no style, no script."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(re.sub(r"<(style|script)>.*?</\1>", r"<\1></\1>", html, flags=re.DOTALL))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_data(self, data):
        self.text += data.replace("\xa0", " ")

    def values(self, tag, name):
        """Of one attribute, wherever it stands."""
        return [value for each, attribute, value in self.attributes if (each, attribute) == (tag, name)]


@pytest.fixture(scope="session")
def parse():
    """A function that reads a page's HTML."""
    return Page


@pytest.fixture(scope="session")
def write():
    """A function that writes a report, by default without topics: path below analysis/ -> text, or bytes."""

    def written(folder, runs, findings=None):
        paths = write_report(folder, runs, findings or replace(find(runs), topics=[]))
        assert {name: folder / "analysis" / name for name in paths} == paths
        binary = (".png", ".parquet")
        return {
            name: path.read_bytes() if name.endswith(binary) else path.read_text(encoding="utf-8")
            for name, path in paths.items()
        }

    return written


@pytest.fixture(scope="session")
def make_runs():
    """A function that makes a study of every combination of the levels at every seed."""
    return _make_runs


@pytest.fixture(scope="session")
def hostile_runs():
    """Everything that a stranger's run file can name, named as badly as can be."""
    roles = {"../../up": "scientific", SCRIPT: "nuisance", "--> $x_{1$ | `b`": "nuisance"}
    data = {
        "source": f"{IMAGE}{SCRIPT}",
        "class_names": [SCRIPT],
        "splits": {SCRIPT: {"num_images": 1, "scenes": [SCRIPT, "| a |"]}},
        "floors": {SCRIPT: {"val/miou": 0.3}},
    }
    levels = ((10, 50), (FORMULA, "resnet18"), ("$\\frac{", "</svg>"))
    excluded = [(SCRIPT, "<b>reason</b>\n# heading")]
    return _make_runs(roles, levels, study=f"demo{SCRIPT}", data=data, excluded=excluded)


@pytest.fixture(scope="session")
def confirm_all():
    """A function that confirms every cell at fresh seeds."""
    return _confirm_all


@pytest.fixture(scope="session")
def add_topics():
    """A function that adds a topic of every kind to findings; `name` is what each of their words ends with."""
    return _add_topics


@pytest.fixture(scope="session")
def add_panels():
    """A function that writes two prediction panels of a trial into a study's folder."""
    return _add_panels


def _make_runs(roles=ROLES, levels=((10, 50), (0.001, 0.01), (0.0, 2.0)), num_seeds=3, **changes):
    """Every combination of the levels at every seed; better with the later level of each factor."""
    trials, epochs, training = [], [], {}
    cells = [(a, b, c) for a in levels[0] for b in levels[1] for c in levels[2]]
    for i, cell in enumerate(cells):
        for seed in range(num_seeds):
            trial_id = f"{100 * i + seed:012x}"
            parameters = dict(zip(roles, cell, strict=True))
            key = {"run_id": f"demo-{trial_id}", "trial_id": trial_id, "seed": seed, "phase": "explore", **parameters}
            value = 0.5 + 0.02 * i + 0.01 * seed
            trials.append({**key, "objective": value, "test": math.nan, "time_s": 60.0})
            epochs += [{**key, "epoch": epoch, "val/miou": value - 0.1 / epoch} for epoch in (1, 2)]
            training[trial_id] = {**parameters, "seed": seed, "encoder": "resnet18", "weights": "none"}
    settings = {
        "study": "demo",
        "parameters": dict(roles),
        "objective": {"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.01},
        "data": {
            "source": "/data/forest",
            "num_images": 300,
            "num_images_available": 3052,
            "num_scenes": 12,
            "image_size": 128,
            "class_names": ["background", "forest"],
            "fingerprint": "ab12",
            "splits": {
                "train": {"num_images": 180, "scenes": ["10452"]},
                "val": {"num_images": 60, "scenes": ["7791"]},
            },
            "forest_share": {"train": 0.6123, "val": 0.58},
            "floors": {
                "all_forest": {"val/miou": 0.3, "test/miou": 0.28},
                "image_majority": {"val/miou": 0.9, "test/miou": 0.88},
            },
        },
        "data_config": {"root": "/data/forest"},
        "epochs": pd.DataFrame(epochs),
        "trials": pd.DataFrame(trials),
        "training": training,
        "excluded": [("demo-ffffffffffff", "1 of 2 epochs")],
    }
    return StudyRuns(**{**settings, **changes})


def _confirm_all(runs):
    """The same study, with every cell confirmed at seeds 100 to 102, on the test split .03 below validation."""
    fresh = runs.trials.assign(
        run_id="confirm-" + runs.trials["run_id"],
        trial_id="f" + runs.trials["trial_id"].str[1:],
        seed=runs.trials["seed"] + 100,
        phase="confirm",
        objective=runs.trials["objective"] - 0.02,
        test=runs.trials["objective"] - 0.05,
    )
    epochs = runs.epochs.assign(run_id="confirm-" + runs.epochs["run_id"], phase="confirm")
    training = {f"f{trial_id[1:]}": training for trial_id, training in runs.training.items()}
    return replace(
        runs,
        trials=pd.concat([runs.trials, fresh], ignore_index=True),
        epochs=pd.concat([runs.epochs, epochs], ignore_index=True),
        training=runs.training | training,
    )


def _add_topics(findings, name=""):
    ids = findings.recommended.run_ids

    def claim(subject, readings, verdict="", **values):
        estimate = mean_interval(readings) if readings else None
        return Claim(f"{subject}{name}", estimate, values, f"{verdict}{name}" if verdict else "", ids)

    def topic(kind, title, unit, population, columns, *claims):
        text = f"{title} is what this says{name}. A second sentence follows."
        return Topic(kind, f"{title}{name}", f"{unit}{name}", population, text, columns, list(claims))

    topics = [
        topic("returns", "Diminishing returns", "test/miou per doubling", "seeds", {"hours": f"annotation hours{name}"},
              claim("2 to 10", [0.031, 0.028, 0.036], "worth it", hours=1.25),
              claim("10 to 50", [0.001, -0.002, 0.004], "undecided", hours=12345.6)),
        topic("importance", "Importance of the settings", "share of variance", "permutations",
              {"null": "chance reaches"},
              claim("learning rate", [0.61, 0.65, 0.6], "matters", null=0.11),
              claim("focal gamma", [0.04, 0.05, 0.03], "noise", null=0.12)),
        topic("effort", "Annotation effort", "test/miou", "seeds", {"hours": "hours", "on_front": "on the front"},
              claim("2 points, 45 images", [0.60, 0.61, 0.62], hours=0.4, on_front=True),
              claim("10 points, 45 images", [0.58, 0.59, 0.6], hours=1.1, on_front=False),
              claim("50 points, 45 images", [0.70, 0.71, 0.72], hours=6.3, on_front=True)),
        topic("power", "Power of this study", "test/miou", "seeds",
              {"num_seeds": "seeds", "difference": "detectable difference"},
              *(claim(f"{n} seeds", None, num_seeds=n, difference=0.1 / n) for n in (3, 5, 8))),
        topic("stability", "Stability", "test/miou", "", {"diverged": "diverged"},
              claim("learning rate 0.1", None, "unstable", diverged="3 of 9"), claim("learning rate 0.001", None)),
    ]  # fmt: skip
    return replace(findings, topics=topics)


def _add_panels(study_dir, trial_id, scene="7791"):
    folder = study_dir / "analysis" / "panels"
    folder.mkdir(parents=True)
    panels, files = [], {}
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 3 * 64, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="png")
        (folder / f"{number}.png").write_bytes(file.getvalue())
        files[f"{number}.png"] = hashlib.sha256(file.getvalue()).hexdigest()
        title = f"Test scene {scene}, {number} of 2 by mIoU"
        panels.append({"file": f"{number}.png", "title": title, "text": f"{title}: mIoU 0.500. The image, its labels."})
    source = {"result": "ab12"}
    write_sealed(folder / "panels.json", {"trial_id": trial_id, "panels": panels, "files": files, "source": source})
    return folder


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """A study's folder with a report of all that a report can hold: (folder, runs, findings)."""
    folder = tmp_path_factory.mktemp("everything")
    excluded = [(f"demo-{n:012x}", f"{n} of 90 epochs") for n in range(80)] + [("demo-twin", "another study's")]
    runs = _confirm_all(_make_runs(levels=((2, 10, 50), (0.0003, 0.003), (0.0, 2.0)), excluded=excluded))
    findings = _add_topics(find(runs))
    _add_panels(folder, findings.recommended.trial_ids[0])
    write_report(folder, runs, findings)
    return folder, runs, findings
