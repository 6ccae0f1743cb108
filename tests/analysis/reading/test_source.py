"""What is typed becomes a source, or one line that says why not."""

from pathlib import Path

import pytest

from analysis.reading.source import find_source
from trainable.config import InputError


def test_a_folder_keeps_its_results_unless_told_otherwise(tmp_path: Path) -> None:
    source = find_source(tmp_path)
    assert (source.study_dir, source.out, source.trials_dir, source.name) == (
        tmp_path,
        tmp_path,
        tmp_path,
        tmp_path.name,
    )
    assert source.cache_dir == tmp_path / "analysis" / ".cache"
    mapped = find_source(str(tmp_path), columns=["objective=val_miou"], out=tmp_path / "out")
    assert (mapped.study_dir, mapped.out, mapped.trials_dir) == (tmp_path, tmp_path / "out", None)


def test_a_project_goes_to_a_folder_of_its_name(tmp_path: Path) -> None:
    source = find_source("wandb://me/forest", ["group=de/mo", "config.a.b=1=2"])
    assert (source.study_dir, source.project, source.out) == (None, "me/forest", Path("forest-de-mo"))
    assert source.filters == {"group": "de/mo", "config.a.b": "1=2"}
    assert source.name == "de/mo"
    assert find_source("wandb://me/forest").name == "forest"


def test_a_cache_that_cannot_be_written_or_lies_behind_a_link_is_left_out(tmp_path: Path) -> None:
    for name in ("file", "linked", "linked_cache", "dangling"):
        (tmp_path / name / "analysis").parent.mkdir()
    (tmp_path / "file" / "analysis").write_text("")
    (tmp_path / "linked" / "analysis").symlink_to(tmp_path)
    for name, target in (("linked_cache", tmp_path), ("dangling", tmp_path / "nowhere")):
        (tmp_path / name / "analysis").mkdir()
        (tmp_path / name / "analysis" / ".cache").symlink_to(target)
    for name in ("file", "linked", "linked_cache", "dangling"):
        assert find_source(tmp_path / name).cache_dir is None


@pytest.mark.parametrize(
    ("place", "filters", "columns", "message"),
    [
        (".", ["group=x"], [], r"--filter: is for wandb://ENTITY/PROJECT, but \. is a folder; leave it out"),
        ("wandb://a/b", ["group"], [], "--filter group: must be key=value, as in group=demo"),
        ("nowhere", [], [], "nowhere: no such folder"),
        (__file__, [], [], "test_source.py: is a file; name the study's folder"),
        ("wandb://a/b", ["group=x", "group=y"], [], "--filter group=y: group is x already; leave one of them out"),
        (".", [], ["points=n", "gamma=n"], "--map gamma=n: n is points_per_image already; leave one of them out"),
        (".", [], ["epochs=n"], "--map epochs=n: how many epochs a run has is counted; leave it out"),
        (".", [], ["objective=val/nll"], "--map objective=val/nll: smaller looks to be better there"),
        (".", [], ["points"], "--map points: must be name=column, as in points=num_points"),
        (".", [], ["pionts=n"], "--map pionts=n: no such name; did you mean points"),
        (".", [], ["learnin_rate=n"], "--map learnin_rate=n: no such name; did you mean learning_rate"),
        (".", [], ["points=n", "points_per_image=m"], "points_per_image is n already; leave one of them out"),
        (".", [], ["points=n"], "must say which metric is the objective; add --map objective=METRIC"),
    ],
)
def test_what_makes_no_sense_is_refused(place: str, filters: list[str], columns: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_source(place, filters, columns)
