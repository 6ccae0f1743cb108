from pathlib import Path
from typing import Any

import pytest

from study.spec import parse_study
from trainable.config import InputError

STUDY: dict[str, Any] = {
    "study": "tiny",
    "data": {"synthetic": {}},
    "parameters": {"points_per_image": {"role": "scientific", "values": [2]}},
    "search": {"method": "grid", "seeds": [0]},
}


def test_a_study_lives_in_a_folder_or_at_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANOPOINT_CACHE", "/var/cache/canopoint")
    on_disk = parse_study({**STUDY, "storage": "/mnt/shared/studies"}, "tiny.yaml")
    assert (on_disk.folder, on_disk.url) == (Path("/mnt/shared/studies/tiny"), "")
    for storage in ("s3://bucket/lab/studies", "s3://bucket/lab/studies/"):
        in_store = parse_study({**STUDY, "storage": storage}, "tiny.yaml")
        assert in_store.url == "s3://bucket/lab/studies/tiny"
        assert in_store.folder.parent.parent == Path("/var/cache/canopoint")
        assert in_store.folder.name == "tiny"
        assert in_store.to_mapping()["storage"] == storage


@pytest.mark.parametrize("storage", ["s3://key:secret@bucket/p", "s3:/bucket/p", "s3://bucket/../p", "ftp://host/p"])
def test_what_is_no_plain_url_is_refused_in_one_line(storage: str) -> None:
    with pytest.raises(InputError, match=r"^tiny.yaml: storage: ") as refused:
        parse_study({**STUDY, "storage": storage}, "tiny.yaml")
    assert "key:secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
