import math

import pytest

from bench import run
from bench.scale import Scale


def test_an_unknown_group_is_named_beside_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["loss", "speed"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("bench: no such group: speed; known: batch, packing, ")
    assert captured.out == ""


@pytest.mark.parametrize("group", ["loss", "last_stage", "metrics"])
def test_parts_without_files_run_small(group: str, tiny: Scale) -> None:
    _check(group, tiny)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["batch", "packing", "epochs", "waiting", "memory", "precision"])
def test_what_reads_files_or_takes_seconds_runs_small(group: str, tiny: Scale) -> None:
    _check(group, tiny)


def _check(group: str, scale: Scale) -> None:
    lines = run.GROUPS[group](scale)
    assert len({line.name for line in lines}) == len(lines) > 0
    for line in lines:
        assert line.baseline > 0
        assert line.ours > 0
        assert math.isfinite(line.ratio)
