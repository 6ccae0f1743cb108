import hashlib
import json
import struct

import pytest

from analysis.find import find
from analysis.report.panels import read_panels
from trainable.sealed import unseal, write_sealed


@pytest.fixture(scope="module")
def findings(make_runs):
    return find(make_runs())


@pytest.fixture
def folder(tmp_path, findings, add_panels):
    return add_panels(tmp_path, findings.recommended.trial_ids[0])


def reseal(folder, **changes):
    path = folder / "panels.json"
    write_sealed(path, unseal(path.read_bytes()) | changes)


def rewrite(folder, **changes):
    first, *others = unseal((folder / "panels.json").read_bytes())["panels"]
    reseal(folder, panels=[first | changes, *others])


def redraw(folder, png):
    """Another file in the place of the first picture, with its own checksum."""
    (folder / "1.png").write_bytes(png)
    reseal(
        folder,
        files=unseal((folder / "panels.json").read_bytes())["files"] | {"1.png": hashlib.sha256(png).hexdigest()},
    )


def refusal(folder, findings, caplog, **kwargs):
    """The one warning in the place of the pictures."""
    assert read_panels(folder.parent, findings, **kwargs) == []
    (record,) = caplog.records
    message = record.getMessage()
    assert message.endswith("; the report shows no prediction panels")
    assert "\n" not in message
    return message


def test_panels_of_the_recommended_configuration_are_read_in_order(folder, findings, caplog):
    best, worst = read_panels(folder.parent, findings)
    assert (best.title, worst.title) == ("Test scene 7791, 1 of 2 by mIoU", "Test scene 7791, 2 of 2 by mIoU")
    assert best.text == "Test scene 7791, 1 of 2 by mIoU: mIoU 0.500. The image, its labels."
    assert (best.path, best.width, best.height) == ("panels/1.png", 192, 64)
    assert best.png == (folder / "1.png").read_bytes()
    assert not caplog.records


def test_without_panels_or_with_those_of_another_trial_none_are_shown(tmp_path, findings, add_panels, caplog):
    assert read_panels(tmp_path / "analysis", findings) == []
    assert read_panels(add_panels(tmp_path, "0123456789ab").parent, findings) == []
    assert not caplog.records


def test_a_changed_list_is_left_out(folder, findings, caplog):
    path = folder / "panels.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trial_id": "x"}))
    assert "panels.json: damaged" in refusal(folder, findings, caplog)


@pytest.mark.parametrize("sha256", ["ab12", "cd34"])
def test_panels_of_a_trial_that_was_trained_anew_are_left_out(folder, findings, tmp_path, caplog, sha256):
    trial = tmp_path / "trials" / findings.recommended.trial_ids[0]
    trial.mkdir(parents=True)
    write_sealed(trial / "result.json", {"result_sha256": sha256})
    if sha256 == "ab12":
        assert len(read_panels(folder.parent, findings, tmp_path)) == 2
    else:
        said = refusal(folder, findings, caplog, study_dir=tmp_path)
        assert f"another result than {trial} has; `canopoint report` draws them anew" in said


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/hostname", "..", "", "gone.png", "panels.json/../1.png"])
def test_no_file_elsewhere_is_read(folder, findings, name, caplog):
    rewrite(folder, file=name)
    assert "must be a file beside it; remove " in refusal(folder, findings, caplog)


def test_a_link_is_not_followed(folder, findings, tmp_path, caplog):
    (folder / "1.png").rename(tmp_path / "secret.png")
    (folder / "1.png").symlink_to(tmp_path / "secret.png")
    assert "must be a file beside it" in refusal(folder, findings, caplog)


@pytest.mark.parametrize(
    "content", [b"", b"<svg onload=alert(1)>", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n", bytes(5 * 2**20)]
)
def test_only_a_png_file_of_a_bounded_size_is_shown(folder, findings, content, caplog):
    redraw(folder, content)
    assert "1.png: must be a PNG file of at most 4 MiB" in refusal(folder, findings, caplog)


@pytest.mark.parametrize("size", [(0, 10), (100_000, 100_000)])
def test_a_picture_of_many_pixels_is_left_out(folder, findings, size, caplog):
    png = (folder / "1.png").read_bytes()
    redraw(folder, png[:16] + struct.pack(">II", *size) + png[24:])
    assert "at most 8192 a side" in refusal(folder, findings, caplog)


def test_a_flipped_bit_in_a_picture_is_noticed(folder, findings, caplog):
    png = bytearray((folder / "2.png").read_bytes())
    png[-20] ^= 1
    (folder / "2.png").write_bytes(png)
    said = refusal(folder, findings, caplog)
    assert "2.png: is not as it was drawn; remove " in said
    assert "run `canopoint report` again" in said


@pytest.mark.parametrize("change", [{"title": None}, {"text": 3}, {"file": ["a"]}])
def test_an_entry_without_its_fields_is_left_out(folder, findings, change, caplog):
    rewrite(folder, **change)
    assert "panels.json: panels[0]: must name file, title, text" in refusal(folder, findings, caplog)


@pytest.mark.parametrize("change", [{"panels": [1]}, {"panels": 3}, {"files": 3}, {"files": {}}, {"panels": [{}] * 25}])
def test_a_sealed_list_of_another_shape_is_left_out(folder, findings, change, caplog):
    reseal(folder, **change)
    assert str(folder) in refusal(folder, findings, caplog)
