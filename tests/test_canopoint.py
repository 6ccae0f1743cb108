"""The command line, as a user meets it: exit codes, one line on stderr, and what is on the disk afterwards."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import canopoint
from cluster.commands import say
from trainable.config import SyntheticConfig
from trainable.sealed import write_sealed
from trainable.synthetic import write_synthetic

STUDY = """\
study: small
data: {root: forest}
training: {encoder: resnet18, weights: none, image_size: 32, epochs: 1, batch_size: 2}
parameters:
  points_per_image: {role: scientific, values: [2, 20]}
  learning_rate: {role: nuisance, values: [1e-3, 1e-4]}
search: {seeds: [0, 1, 2]}
"""
TRAINING = """\
data: {synthetic: {num_scenes: 3, images_per_scene: 2, image_size: 32}}
training: {encoder: resnet18, weights: none, image_size: 32, epochs: 1, batch_size: 2, points_per_image: 5}
"""
SCRIPT = Path(sys.executable).parent / "canopoint"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a study and its data: three scenes of one image each."""
    write_synthetic(SyntheticConfig(num_scenes=3, images_per_scene=1, image_size=32), tmp_path / "forest")
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder: Path) -> dict[Path, str]:
    """Every path below the folder, with its content's hash."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in folder.rglob("*")}


def refusal(capsys: Captured, folder: Path, *command: str) -> str:
    """The one line that a command is refused with; it exits with 2 and has written nothing."""
    before = tree(folder)
    assert canopoint.main(list(command)) == 2
    captured = capsys.readouterr()
    assert tree(folder) == before
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("canopoint: ")
    return captured.err.rstrip("\n")


def resize_mask(root: Path) -> None:
    Image.new("L", (16, 32), 255).save(root / "masks" / "scene01_mask_00.png")


def drop_image(root: Path) -> None:
    (root / "images" / "scene01_sat_00.png").unlink()


def empty_masks(root: Path) -> None:
    for mask in (root / "masks").iterdir():
        mask.unlink()


def blacken_masks(root: Path) -> None:
    for mask in (root / "masks").iterdir():
        Image.new("L", (32, 32), 0).save(mask)


def truncate(num_bytes: int) -> Callable[[Path], None]:
    def cut(root: Path) -> None:
        image = root / "images" / "scene02_sat_00.png"
        image.write_bytes(image.read_bytes()[:num_bytes])

    return cut


def rewrite_table(content: bytes) -> Callable[[Path], None]:
    def rewrite(root: Path) -> None:
        (root / "meta_data.csv").write_bytes(content)

    return rewrite


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (shutil.rmtree, ["data.root", "forest", "no such folder"]),
        (resize_mask, ["forest/masks/scene01_mask_00.png", "16x32", "32x32"]),
        (drop_image, ["forest/meta_data.csv: row 3", "forest/images/scene01_sat_00.png", "absent"]),
        (empty_masks, ["forest/masks", "empty"]),
        (blacken_masks, ["forest/masks", "no pixel"]),
        (truncate(500), ["forest/images/scene02_sat_00.png", "cannot be decoded"]),  # within the pixels
        (truncate(20), ["forest/images/scene02_sat_00.png"]),  # within the header
        (truncate(0), ["forest/images/scene02_sat_00.png"]),
        (rewrite_table(b""), ["forest/meta_data.csv", "image"]),
        (rewrite_table(b"image,mask\n"), ["forest/meta_data.csv", "no rows"]),
        (rewrite_table(b"image,mask\n../study.yaml,b.png\n"), ["forest/meta_data.csv: row 2", "plain file name"]),
        (rewrite_table(b"image,mask\nscene00_sat_00.png\n"), ["forest/meta_data.csv: row 2", "mask"]),
        (rewrite_table(b"image,mask\n\xff\xfe,b.png\n"), ["forest/meta_data.csv", "UTF-8"]),
        (rewrite_table(b"image,mask\n" + 300 * b"a" + b",b\n"), ["forest/meta_data.csv: row 2"]),
        (rewrite_table(b'image,mask\n"a\nb",c\n'), ["forest/meta_data.csv: row"]),  # a line break within a name
    ],
)
def test_run_refuses_bad_data_and_writes_nothing(
    folder: Path, capsys: Captured, damage: Callable[[Path], None], named: list[str]
) -> None:
    damage(folder / "forest")
    message = refusal(capsys, folder, "run", "study.yaml")
    assert [part for part in named if part not in message] == []
    assert not (folder / "studies").exists()


BAD_STUDIES = [
    ("image_size: 32", "image_sise: 32", ["training.image_sise", "did you mean image_size?"]),
    ("epochs: 1", "learning_rate: -1", ["training.learning_rate", "greater than 0, got -1"]),
    ("[1e-3, 1e-4]", "[1e-3, -1]", ["parameters.learning_rate", "greater than 0, got -1"]),
    ("[2, 20]", "[2, 2000]", ["points_per_image", "1024 pixels"]),  # 32 x 32
    ("image_size: 32", "image_size: 100", ["training.image_size", "multiple of 32"]),
    ("root: forest", 'root: ""', ["data.root"]),
    ("root: forest", "root: forest, max_images: 2", ["data.max_images", "at least 3"]),
    ("search:", "parameters:", ["line 7", "'parameters' stands twice"]),
    ("small", "small\nstorage: study.yaml", ["storage"]),  # a file, no folder
]


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(("old", "new", "named"), BAD_STUDIES)
def test_a_bad_study_is_refused_by_its_file_and_field(
    folder: Path, capsys: Captured, command: str, old: str, new: str, named: list[str]
) -> None:
    (folder / "study.yaml").write_text(STUDY.replace(old, new, 1))
    message = refusal(capsys, folder, command, "study.yaml")
    assert [part for part in ["study.yaml", *named] if part not in message] == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "absent.yaml"], "absent.yaml: no such file"),
        (["run", "dmo"], "dmo: no such file, and in the catalog: no such study; did you mean demo?"),
        (["plan", "forest"], "forest: no such file"),
        (["plan", "study.yaml", "--set", "training.epochs"], "--set training.epochs: must be a.b=value"),
        (["init", "absent.yaml"], "absent.yaml: no such file"),
        (["init", "dmo"], "dmo: no such file, and in the catalog: no such study; did you mean demo?"),
        (["data", "forest"], "forest: exists already; give a new folder"),
        (["train", "absent.yaml"], "absent.yaml: no such file"),
        (["train", "study.yaml"], "study.yaml: study: no such section; known: data, training, reproduces"),
        (["analyze", "studies/small"], "studies/small: "),
    ],
)
def test_a_bad_argument_is_refused(folder: Path, capsys: Captured, command: list[str], message: str) -> None:
    assert refusal(capsys, folder, *command).startswith(f"canopoint: {message}")


MANIFEST = ["manifest", "slurm", "study.yaml", "--set", "storage=/shared/s", "--set", "data.root=/shared/forest"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("absent/x", "--out absent/x: cannot be written (No such file or directory)"),
        ("study.yaml/x", "--out study.yaml/x: cannot be written (Not a directory)"),
        ("study.yaml", "study.yaml: exists already"),
        ("forest", "forest: exists already"),
        ("link", "link: exists already"),
    ],
)
def test_a_manifest_is_written_into_a_new_file_alone(folder: Path, capsys: Captured, out: str, message: str) -> None:
    (folder / "link").symlink_to("absent.txt")
    assert refusal(capsys, folder, *MANIFEST, "--out", out).startswith(f"canopoint: {message}")


def test_a_manifest_is_the_same_in_a_file_and_on_the_screen(folder: Path, capsys: Captured) -> None:
    assert canopoint.main(MANIFEST) == 0
    printed = capsys.readouterr().out
    assert canopoint.main([*MANIFEST, "--out", "new"]) == 0
    assert (folder / "new").read_text() == printed


@pytest.mark.parametrize("command", ["logs", "stop", "status", "resume", "submit"])
def test_an_address_that_is_none_is_refused(folder: Path, capsys: Captured, command: str) -> None:
    name = ["demo", "--set", "storage=/shared/s"] if command == "submit" else ["demo"]
    message = refusal(capsys, folder, command, *name, "--address", "http://[::1")
    assert message.startswith("canopoint: --address http://[::1: is no address of the Jobs API")


def test_what_a_cluster_says_of_others_doing_moves_no_cursor_and_stays_readable(capsys: Captured) -> None:
    say("name\tÄpfel\x1b]0;title\x07\rover\x9b2J\nforged")
    assert capsys.readouterr().out == "name    Äpfel ]0;title  over 2J forged\n"


@pytest.mark.parametrize("command", [[], ["runn"], ["run"], ["plan", "study.yaml", "--format", "xml"]])
def test_a_bad_command_line_exits_with_2(capsys: Captured, command: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        canopoint.main(command)
    assert caught.value.code == 2
    assert "usage: canopoint" in capsys.readouterr().err


def test_help_names_every_command(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        canopoint.main(["--help"])
    assert caught.value.code == 0
    helped = capsys.readouterr().out
    for command in ("init", "validate", "plan", "run", "analyze", "train", "data"):
        assert re.search(rf"^    {command} +\S", helped, re.MULTILINE)
        with pytest.raises(SystemExit) as caught:
            canopoint.main([command, "--help"])
        assert caught.value.code == 0


def test_init_writes_a_study_once(folder: Path, capsys: Captured) -> None:
    assert canopoint.main(["init"]) == 0
    assert "wrote demo.yaml" in capsys.readouterr().out
    (folder / "demo.yaml").write_text("# mine\n")
    assert "demo.yaml: exists already" in refusal(capsys, folder, "init", "demo")


def test_what_init_writes_is_valid(folder: Path, capsys: Captured) -> None:
    assert canopoint.main(["init", "demo_images"]) == 0
    assert canopoint.main(["validate", "demo_images.yaml", "--set", "data.root=forest"]) == 0
    assert "demo_images.yaml: valid; 3 images, " in capsys.readouterr().out


def test_validate_counts_and_writes_nothing(folder: Path, capsys: Captured) -> None:
    before = tree(folder)
    assert canopoint.main(["validate", "study.yaml"]) == 0
    assert capsys.readouterr() == ("study.yaml: valid; 3 images, 12 trials\n", "")  # 2 x 2 cells x 3 seeds
    assert tree(folder) == before


def test_plan_for_a_person_writes_nothing(folder: Path, capsys: Captured) -> None:
    before = tree(folder)
    assert canopoint.main(["plan", "study.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "study        small: grid over 2 scientific levels",
        "explore      12 trials at 3 seeds: 0 reused, 12 to run",
    ]
    assert lines[2].startswith("to run       12, ")
    assert tree(folder) == before


def test_plan_for_a_program(capsys: Captured) -> None:
    assert canopoint.main(["plan", "study.yaml", "--set", "training.epochs=8", "--format", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["study"], plan["num_levels"], plan["phases"][0]["seeds"]) == ("small", 2, [0, 1, 2])
    assert (plan["num_trials"], plan["num_done"], plan["num_missing"]) == (12, 0, 12)
    # One training and one validation image of 32 px: (1/8)^2 of resnet18's 9.9 GFLOP, 3 + 1 passes, 8 epochs.
    trial_s = 8 * 4 * 9.9 / 64 / 50
    assert plan["expected_s"] == pytest.approx(12 * trial_s / min(12, plan["num_concurrent"]))


def test_a_study_folder_made_with_other_data_is_refused(folder: Path, capsys: Captured) -> None:
    (folder / "studies" / "small").mkdir(parents=True)
    description = {"fingerprint": "0123456789ab" + 52 * "0", "num_images": 300, "num_scenes": 3, "trainer_version": "2"}
    write_sealed(folder / "studies" / "small" / "data.json", description)
    message = refusal(capsys, folder, "run", "study.yaml")
    assert re.search(r"made with others: data fingerprint 0123456789ab -> [0-9a-f]{12}, images 300 -> 3;", message)
    assert "--accept-changes" in message


def test_data_writes_a_folder_that_validate_accepts(folder: Path, capsys: Captured) -> None:
    assert canopoint.main(["data", "made/landscapes"]) == 0
    assert {path.name for path in (folder / "made" / "landscapes").iterdir()} == {"images", "masks", "meta_data.csv"}
    assert canopoint.main(["validate", "study.yaml", "--set", "data.root=made/landscapes"]) == 0
    assert "valid; 144 images" in capsys.readouterr().out  # twelve scenes of twelve


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one trained configuration, trained by the command."""
    home = tmp_path_factory.mktemp("home")
    (home / "best.yaml").write_text(TRAINING)
    assert canopoint.main(["train", str(home / "best.yaml"), "--out", str(home / "out")]) == 0
    (run,) = (path for path in (home / "out").iterdir() if path.name != ".cache")
    return run


def train_again(trained: Path, capsys: Captured, origin: str) -> str:
    """What `train` says of the same settings with a `reproduces` section; it trains nothing."""
    Path("best.yaml").write_text(TRAINING + origin)
    before = (trained / "metrics.jsonl").stat().st_mtime_ns, (trained / "result.json").stat().st_mtime_ns
    assert canopoint.main(["train", "best.yaml", "--out", str(trained.parent)]) == 0
    assert ((trained / "metrics.jsonl").stat().st_mtime_ns, (trained / "result.json").stat().st_mtime_ns) == before
    assert len([path for path in trained.parent.iterdir() if path.name != ".cache"]) == 1
    return capsys.readouterr().out


def test_train_leaves_weights_and_metrics(trained: Path) -> None:
    assert [path.suffix for path in (trained / "checkpoint").iterdir()] == [".npz"]
    assert json.loads((trained / "result.json").read_text())["epochs"] == 1


def test_train_again_says_where_the_model_is_and_trains_nothing(trained: Path, capsys: Captured) -> None:
    said = train_again(trained, capsys, "")
    assert f"weights and metrics: {trained}" in said
    assert "exported" not in said  # the file names no trial


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        ("{trial_id: ID, result_sha256: SHA256}", "bit by bit"),
        ("{trial_id: ID, result_sha256: abc}", "differs from the exported trial"),
        ("{trial_id: 3f0c00000000, result_sha256: SHA256}", "its settings, data or trainer differ"),
    ],
)
def test_train_compares_with_the_exported_trial(trained: Path, capsys: Captured, origin: str, verdict: str) -> None:
    sha256 = json.loads((trained / "result.json").read_text())["result_sha256"]
    origin = origin.replace("ID", f"'{trained.name}'").replace("SHA256", sha256)
    said = train_again(trained, capsys, f"reproduces: {origin}\n")
    verdicts = ("bit by bit", "differs from the exported trial", "its settings, data or trainer differ")
    assert [each for each in verdicts if each in said] == [verdict]


def test_train_claims_nothing_where_there_is_no_hash_to_compare_with(trained: Path, capsys: Captured) -> None:
    said = train_again(trained, capsys, f"reproduces: {{trial_id: '{trained.name}'}}\n")
    assert "differs" not in said
    assert "bit by bit" not in said


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("epochs: 1", "learning_rate: -1", ["best.yaml", "training.learning_rate", "greater than 0, got -1"]),
        ("epochs:", "epoch:", ["best.yaml", "training.epoch", "did you mean epochs?"]),
        ("training:", "trainign:", ["best.yaml", "trainign", "did you mean training?"]),
        ("synthetic: {num_scenes: 3, images_per_scene: 2, image_size: 32}", "root: absent", ["data.root", "absent"]),
    ],
)
def test_train_refuses_a_bad_file(folder: Path, capsys: Captured, old: str, new: str, named: list[str]) -> None:
    (folder / "best.yaml").write_text(TRAINING.replace(old, new, 1))
    message = refusal(capsys, folder, "train", "best.yaml")
    assert [part for part in named if part not in message] == []


def test_train_refuses_an_output_that_is_a_file(folder: Path, capsys: Captured) -> None:
    (folder / "best.yaml").write_text(TRAINING)
    assert "study.yaml" in refusal(capsys, folder, "train", "best.yaml", "--out", "study.yaml")


@pytest.mark.parametrize(
    ("command", "code", "num_lines"),
    [
        (["--help"], 0, 0),
        (["run", "study.yaml", "--set", "training.learning_rte=1"], 2, 1),
        (["validate", "study.yaml"], 0, 0),
    ],
)
def test_the_installed_command(folder: Path, command: list[str], code: int, num_lines: int) -> None:
    done = subprocess.run([SCRIPT, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == num_lines
    assert done.stdout if code == 0 else "did you mean learning_rate?" in done.stderr


def test_points_to_label_are_written_once(folder: Path, capsys: Captured) -> None:
    assert canopoint.main(["data", "mine"]) == 0
    command = ["points", "mine", "--points", "3", "--strategy", "grid", "--out", "mine/points.csv"]
    assert canopoint.main(command) == 0
    num_images = len(list((folder / "mine" / "images").iterdir()))
    assert f"{3 * num_images} points in {num_images} images" in capsys.readouterr().out
    written = (folder / "mine" / "points.csv").read_text()
    assert canopoint.main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder / "mine" / "points.csv").read_text() == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["points", "absent", "--out", "p.csv"], "absent: no such folder"),
        (["points", "mine", "--out", "p.csv", "--points", "0"], "training.points_per_image: must be at least 1"),
        (["points", "mine", "--out", "p.csv", "--strategy", "gird"], "did you mean grid?"),
        (["predict", "absent", "image.png"], "absent: holds no finished run"),
    ],
)
def test_points_and_predict_refuse_bad_input(
    folder: Path, capsys: Captured, arguments: list[str], message: str
) -> None:
    before = tree(folder)
    assert canopoint.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert tree(folder) == before
