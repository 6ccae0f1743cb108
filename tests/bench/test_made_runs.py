"""Made run files are W&B's own: written again unchanged they are the same bytes, and readers read what was meant."""

from pathlib import Path

import pytest

from analysis.reading.run_files import BLOCK_SIZE, iter_frames
from analysis.reading.runs import load_study
from bench.made_runs import RATES, framed, make_runs, run_id, write_real_run
from bench.reading import measured, study_text


@pytest.mark.slow
def test_a_real_run_written_again_is_the_same_file(tmp_path: Path) -> None:
    path = write_real_run(tmp_path / "real", 40)
    content = path.read_bytes()
    assert len(content) > 2 * BLOCK_SIZE
    assert framed(list(iter_frames(path, []))) == content


@pytest.mark.slow
def test_made_runs_are_one_study_of_many_cells(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "many"
    folder.mkdir(parents=True)
    make_runs(folder, 6, 3)
    (folder / "study.yaml").write_text(study_text(6, 3))
    runs = load_study(folder)
    assert runs.excluded == []
    assert runs.trials["run_id"].tolist() == [run_id(number) for number in range(6)]
    assert runs.trials["points_per_image"].tolist() == [10, 50, 100, 200, 10, 50]
    assert runs.trials["learning_rate"].tolist() == [RATES[0]] * 4 + [RATES[1]] * 2
    assert runs.trials["objective"].nunique() == 6
    assert len(runs.epochs.columns) == 7 + 25 - 1 + 1


HELD = "x = bytearray(80_000_000)"
PARENT = (
    f"{HELD}; import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; {HELD}; time.sleep(.5)'])"
)


def test_a_process_is_measured_with_its_children() -> None:
    found = measured(["python3", "-c", PARENT])
    assert 0.15 < found["peak_gib"] < 0.4
    assert found["wall_s"] > 0.5
