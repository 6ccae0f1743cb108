import json
import struct

import pytest

from analysis.find import find
from analysis.report.panels import read_panels
from trainable.config import InputError
from trainable.sealed import unseal, write_sealed


@pytest.fixture(scope="module")
def findings(make_runs):
    return find(make_runs())


@pytest.fixture
def folder(tmp_path, findings, add_panels):
    return add_panels(tmp_path, findings.recommended.trial_ids[0])


def rewrite(folder, **changes):
    path = folder / "panels.json"
    content = unseal(path.read_bytes())
    content["panels"][0].update(changes)
    write_sealed(path, content)


def test_panels_of_the_recommended_configuration_are_read_in_order(folder, findings):
    best, worst = read_panels(folder.parent, findings)
    assert (best.title, worst.title) == ("Best test scene: 7791", "Worst test scene: 7791")
    assert best.text == "Best test scene, 7791. Above: the image, its labels, the truth."
    assert (best.path, best.width, best.height) == ("panels/1.png", 192, 64)
    assert best.png == (folder / "1.png").read_bytes()


def test_without_panels_or_with_those_of_another_trial_none_are_shown(tmp_path, findings, add_panels):
    assert read_panels(tmp_path / "analysis", findings) == []
    assert read_panels(add_panels(tmp_path, "0123456789ab").parent, findings) == []


def test_a_changed_list_is_refused(folder, findings):
    path = folder / "panels.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trial_id": "x"}))
    with pytest.raises(InputError, match=r"panels\.json: damaged"):
        read_panels(folder.parent, findings)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/hostname", "..", "", "gone.png", "panels.json/../1.png"])
def test_no_file_elsewhere_is_read(folder, findings, name):
    rewrite(folder, file=name)
    with pytest.raises(InputError, match=r"must be a file beside it; remove .*panels and run"):
        read_panels(folder.parent, findings)


def test_a_link_is_refused(folder, findings, tmp_path):
    (folder / "1.png").rename(tmp_path / "secret.png")
    (folder / "1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="must be a file beside it"):
        read_panels(folder.parent, findings)


@pytest.mark.parametrize(
    "content", [b"", b"<svg onload=alert(1)>", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n", bytes(5 * 2**20)]
)
def test_only_a_png_file_of_a_bounded_size_is_shown(folder, findings, content):
    (folder / "1.png").write_bytes(content)
    with pytest.raises(InputError, match=r"1\.png: must be a PNG file of at most 4 MiB"):
        read_panels(folder.parent, findings)


@pytest.mark.parametrize("size", [(0, 10), (100_000, 100_000)])
def test_a_picture_of_many_pixels_is_refused(folder, findings, size):
    png = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(png[:16] + struct.pack(">II", *size) + png[24:])
    with pytest.raises(InputError, match="at most 8192 a side"):
        read_panels(folder.parent, findings)


@pytest.mark.parametrize("change", [{"kind": None}, {"text": 3}, {"scene": ["a"]}])
def test_an_entry_without_its_fields_is_refused(folder, findings, change):
    rewrite(folder, **change)
    with pytest.raises(InputError, match=r"panels\.json: panels\[0\]: must name file, kind, split, scene, text"):
        read_panels(folder.parent, findings)


def test_more_panels_than_a_page_bears_are_refused(folder, findings):
    content = unseal((folder / "panels.json").read_bytes())
    write_sealed(folder / "panels.json", {**content, "panels": content["panels"] * 13})
    with pytest.raises(InputError, match="must be a list of at most 24"):
        read_panels(folder.parent, findings)
