import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.processes import kill_trees, process
from cluster.manifests import render
from study.spec import load_study

FOLDERS = ["storage=/shared/studies", "data.root=/shared/forest"]
BUCKET = ["storage=s3://bucket/studies", "data.root=/shared/forest"]
RENTED = ("ray-aws", "ray-gcp")


@pytest.fixture(scope="session")
def rendered():
    """The manifest of a study of the catalog that asks for half a GPU a trial, stored where its kind allows it."""

    def make(kind: str, *overrides: str, image: str | None = None) -> str:
        place = BUCKET if kind in RENTED else FOLDERS
        return render(kind, load_study("lr_gamma", [*place, *overrides]), image)

    return make


@dataclass
class Slurm:
    """What a batch script finds on Slurm's first node, with stand-ins for its programs: tasks run on this machine.

    Attributes:
        folder: from which the job is submitted.
        job_id: of the job.
        num_nodes: of the allocation.
    """

    folder: Path
    job_id: str
    num_nodes: int = 2
    _started: list["subprocess.Popen[str]"] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """Command lines that Slurm's programs were given."""
        return (self.folder / "said").read_text().splitlines()

    def program(self, name: str, text: str) -> None:
        """Puts a program on the job's PATH, before all others."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o700)

    def start(self, script: str, **environment: str) -> "subprocess.Popen[str]":
        """Starts the job as Slurm would: a copy of the script, in the folder that it was submitted from."""
        self.program("srun", SRUN)
        self.program("scontrol", 'echo "scontrol $*" >>"$SLURM_SUBMIT_DIR/said"\n')
        path = self.folder / "slurm_script"
        path.write_text(script)
        environment = {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": os.environ["HOME"],
            "SLURM_JOB_ID": self.job_id,
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_JOB_NUM_NODES": str(self.num_nodes),
            "SLURM_CPUS_PER_TASK": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        started = subprocess.Popen(
            ["bash", str(path)], cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._started.append(started)
        return started

    def close(self) -> None:
        """Ends jobs that a failed test has left."""
        for each in self._started:
            if found := process(each.pid):
                kill_trees([found])
            each.communicate()


SRUN = """
echo "srun $*" >>"$SLURM_SUBMIT_DIR/said"
env >"$SLURM_SUBMIT_DIR/environment"
while [[ $1 == --* ]]; do
  case $1 in --nodes=*) nodes=${1#*=} ;; esac
  shift
done
tasks=()
trap 'kill -TERM "${tasks[@]}"' TERM
for ((id = 0; id < nodes; id++)); do
  SLURM_NODEID=$id "$@" &
  tasks+=($!)
done
for task in "${tasks[@]}"; do
  while kill -0 "$task" 2>/dev/null; do wait "$task"; done
done
"""


@pytest.fixture
def slurm(tmp_path):
    """Slurm, with an allocation of two nodes."""
    found = Slurm(tmp_path, secrets.token_hex(5))  # short, as Slurm's are
    yield found
    found.close()
