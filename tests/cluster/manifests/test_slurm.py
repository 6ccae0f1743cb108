"""The batch script by itself: as a text, and run with stand-ins for Ray and Canopoint."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from study.yaml_file import parse_yaml

SHELLCHECK = Path(sys.executable).parent / "shellcheck"
HOSTILE = "x'\"$(touch pwned)`id`\nEOF\n'\n#SBATCH --uid=0\n"
REST = "# The rest is the same for every study."

# Makes a folder that all may write into, and says that it is up, as Ray does; ends when it is asked to.
RAY = """
for argument; do case $argument in --temp-dir=*) scratch=${argument#*=} ;; esac; done
mkdir "$scratch"
chmod 777 "$scratch"
stat -c "%a %n" "$(dirname "$scratch")" >>"$SLURM_SUBMIT_DIR/scratch"
if [[ " $* " == *" --head "* ]]; then echo 127.0.0.1:1234 >"$scratch/ray_current_cluster"; fi
echo "Ray runtime started."
trap 'kill $!; exit' TERM
while true; do sleep 60 & wait; done
"""
CANOPOINT = """
echo "canopoint $*" >>"$SLURM_SUBMIT_DIR/said"
stat -c "%a %n" "$RAY_AUTH_TOKEN_PATH" "$(dirname "$RAY_AUTH_TOKEN_PATH")" >"$SLURM_SUBMIT_DIR/modes"
cp "$RAY_AUTH_TOKEN_PATH" "$SLURM_SUBMIT_DIR/token"
trap 'kill $!; exit 3' TERM
sleep "${1:+$TRAINS_S}" & wait
exit "$ENDS"
"""


@pytest.fixture
def stand_ins(slurm):
    slurm.program("ray", RAY)
    slurm.program("canopoint", CANOPOINT)
    return slurm


def end(job: "subprocess.Popen[str]", number: signal.Signals | None = None) -> tuple[int, str]:
    """Waits for the end of a job, signalled or not."""
    if number:
        job.send_signal(number)
    output, _ = job.communicate(timeout=60)
    return job.returncode, output


def wait_for_driver(slurm) -> None:
    for _ in range(300):
        if (slurm.folder / "token").exists():
            return
        time.sleep(0.1)
    raise AssertionError(slurm.said)


def test_shells_and_shellcheck_find_no_fault(rendered, tmp_path):
    path = tmp_path / "job.sh"
    path.write_text(rendered("slurm", f"data.group={yaml.safe_dump(HOSTILE)}"))
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert subprocess.run([SHELLCHECK, str(path)], capture_output=True, text=True).stdout == ""


def test_one_allocation_is_asked_for_as_the_study_needs_it(rendered):
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", rendered("slurm"), re.MULTILINE))
    assert "array" not in options
    assert options.pop("output") == "canopoint-lr-gamma-%j.log"
    assert options == {
        "job-name": "canopoint-lr-gamma",
        "open-mode": "append",
        "nodes": "4",
        "ntasks-per-node": "1",
        "cpus-per-task": "8",
        "gpus-per-node": "1",
        "mem": "32G",
        "time": "24:00:00",
        "signal": "B:USR1@120",
        "requeue": "",
        "no-kill": "",
    }
    assert "gpus-per-node=" not in rendered("slurm", "resources.gpus_per_trial=0").partition("\n# ")[0]


def test_the_study_is_in_it_word_for_word(rendered, tmp_path):
    text = rendered("slurm", f"data.group={yaml.safe_dump(HOSTILE)}", f"data.root={yaml.safe_dump(HOSTILE)}")
    script = f"{text.partition(REST)[0]}\nprintf '%s' \"$study\""
    found = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    study = parse_yaml(found, "study")
    assert study["data"]["group"] == study["data"]["root"] == HOSTILE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_a_job_ends_as_the_study_does_and_leaves_nothing(rendered, stand_ins, code):
    job = stand_ins.start(rendered("slurm"), ENDS=str(code), TRAINS_S="0")
    assert end(job)[0] == code
    assert f"canopoint run {stand_ins.folder}/.canopoint-{stand_ins.job_id}/study.yaml --address 127.0.0.1:1234" in (
        stand_ins.said
    )
    assert not any(line.startswith("scontrol") for line in stand_ins.said)
    assert not list(stand_ins.folder.glob(".canopoint-*"))
    assert not list(Path("/tmp").glob(f"canopoint-{stand_ins.job_id}*"))


def test_the_token_is_in_a_file_of_its_owner_alone(rendered, stand_ins):
    job = stand_ins.start(rendered("slurm"), ENDS="0", TRAINS_S="0", RAY_AUTH_TOKEN="of-another-cluster")
    assert end(job)[0] == 0
    token = (stand_ins.folder / "token").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    modes = [line.split()[0] for line in (stand_ins.folder / "modes").read_text().splitlines()]
    assert modes == ["600", "700"]
    environment = (stand_ins.folder / "environment").read_text()
    assert token not in "\n".join(stand_ins.said) + environment
    assert "RAY_AUTH_MODE=token" in environment
    assert "RAY_AUTH_TOKEN=" not in environment  # Ray would prefer it to the file


@pytest.mark.slow
def test_ray_writes_on_every_node_where_nobody_else_may_enter(rendered, stand_ins, tmp_path):
    """Though others have laid a trap where its files will be."""
    trap = tmp_path / "trap"
    trap.mkdir()
    places = [Path(f"/tmp/canopoint-{stand_ins.job_id}-{node}") for node in (0, 1)]
    places[0].symlink_to(trap)
    places[1].mkdir(mode=0o777)
    (places[1] / "r").symlink_to(trap)
    assert end(stand_ins.start(rendered("slurm"), ENDS="0", TRAINS_S="0"))[0] == 0
    found = sorted((stand_ins.folder / "scratch").read_text().splitlines())
    assert found == [f"700 {place}" for place in places]
    assert list(trap.iterdir()) == []
    assert not any(place.exists() or place.is_symlink() for place in places)


@pytest.mark.slow
def test_a_node_whose_folder_is_somebody_elses_ends_the_job_with_its_name(rendered, stand_ins):
    place = f"/tmp/canopoint-{stand_ins.job_id}-1"
    stand_ins.program("rm", f'[[ $* == *" {place}" ]] && {{ echo "rm: not permitted"; exit 1; }}; exec /bin/rm "$@"')
    code, output = end(stand_ins.start(rendered("slurm"), ENDS="0", TRAINS_S="0"))
    assert code == 1
    assert "rm: not permitted" in output
    assert f"has a {place} that is not ours; remove it" in output
    assert "canopoint: Ray came up on" in output
    assert not list(stand_ins.folder.glob(".canopoint-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "restarts", "requeued"), [("USR1", "0", True), ("TERM", "0", False), ("USR1", "100", False)]
)
def test_a_job_whose_time_is_over_comes_back_and_a_cancelled_one_does_not(
    rendered, stand_ins, number, restarts, requeued
):
    job = stand_ins.start(rendered("slurm"), ENDS="0", TRAINS_S="50", SLURM_RESTART_COUNT=restarts)
    wait_for_driver(stand_ins)
    assert end(job, signal.Signals[f"SIG{number}"])[0] == 3
    assert (f"scontrol requeue {stand_ins.job_id}" in stand_ins.said) is requeued
    assert not list(stand_ins.folder.glob(".canopoint-*"))


@pytest.mark.slow
def test_a_node_that_does_not_start_ends_the_job_with_its_words(rendered, stand_ins):
    stand_ins.program("ray", "echo no space left; exit 1")
    code, output = end(stand_ins.start(rendered("slurm"), ENDS="0", TRAINS_S="0"))
    assert code == 1
    assert "no space left" in output
    assert "canopoint: Ray came up on 0 of 2 nodes" in output
    assert not list(stand_ins.folder.glob(".canopoint-*"))


def test_a_machine_without_canopoint_is_bad_input(rendered, slurm):
    found = slurm.start(rendered("slurm"), PATH="/usr/bin:/bin")
    code, output = end(found)
    assert (code, output.count("\n")) == (2, 1)
    assert "activate its environment" in output
    assert not list(slurm.folder.glob(".canopoint-*"))
