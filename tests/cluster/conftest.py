import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.util import get_core_path

from study.spec import StudySpec, parse_study


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder of the module whose name is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ct-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def make_spec():
    """A study of one scientific and one nuisance factor, small enough for seconds: 2 trials of 2 epochs."""

    def make(storage: Path, **changes: Any) -> StudySpec:
        study = {
            "study": "tiny",
            "data": {"synthetic": {"num_scenes": 3, "images_per_scene": 4, "image_size": 32}},
            "training": {"encoder": "resnet18", "weights": "none", "image_size": 32, "epochs": 2, "batch_size": 4},
            "parameters": {
                "points_per_image": {"role": "scientific", "values": [2, 20]},
                "learning_rate": {"role": "nuisance", "values": [1e-3]},
            },
            "search": {"method": "grid", "seeds": [0]},
            "storage": str(storage),
        }
        return parse_study({**study, **changes}, "tiny")

    return make


@pytest.fixture(scope="session")
def write_spec():
    """Writes a study to a file that `canopoint run` takes."""

    def write(spec: StudySpec, path: Path) -> Path:
        path.write_text(yaml.safe_dump(spec.to_mapping(), sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def public_history():
    """The rows of a run file by W&B's own reader, `wandb leet inspect --json`, without the columns W&B adds."""

    def read(path: Path) -> list[dict[str, Any]]:
        command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
        command += ["--run-file", str(path), str(path.parent)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        items = [json.loads(line).get("history", {}).get("item") for line in output.splitlines()]
        return [{name: value for name, value in item.items() if name[0] != "_"} for item in items if item]

    return read
