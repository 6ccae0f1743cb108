"""A study in an object store is watched from a machine that has nothing of it: moto's S3 server on loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.s3_server import S3Server, s3_server
from cluster.remote_study import RemoteStudy
from cluster.watch import MAX_FAILED_LOOKS, Looks, watch_study
from cluster.watch_picture import Picture
from study.spec import StudySpec
from study.yaml_file import to_yaml
from trainable.config import InputError


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as started:
        yield started


@pytest.fixture
def url(
    server: S3Server, tmp_path: Path, make_spec: Callable[..., StudySpec], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    for name, value in {**server.environment, "CANOPOINT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    study = to_yaml(make_spec(tmp_path / "storage").to_mapping())
    server.put("lab/tiny/study.yaml", study.encode())
    yield f"s3://{server.bucket}/lab/tiny"
    server.clear()


def test_a_study_in_a_store_is_watched_by_its_url(url: str) -> None:
    said: list[str] = []
    assert watch_study(url, said.append) == 3
    assert said[0].endswith(" tiny: none yet")
    assert said[-2] == "tiny: nobody works on it any more"


def test_a_driver_elsewhere_is_known_by_its_lease(url: str) -> None:
    pictures: list[Picture] = []
    remote = RemoteStudy(url)
    with remote.held(print):
        pictures.append(Looks(url).first())
    pictures.append(Looks(url).first())
    assert [picture.status.is_at_work for picture in pictures] == [True, False]


def test_a_store_that_is_away_for_a_while_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(url)
    picture = looks.first()
    (looks._remote.folder / "study.yaml").unlink()  # type: ignore[union-attr]
    monkeypatch.setattr(looks._remote, "pull", lambda: None)
    again = looks.again(picture, 0)
    assert "holds no study" in again.trouble
    assert any(line.startswith("NOT OF NOW   ") for line in again.lines(100, 30))
    with pytest.raises(InputError, match="holds no study"):
        looks.again(picture, MAX_FAILED_LOOKS)
