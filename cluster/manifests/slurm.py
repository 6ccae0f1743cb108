"""A Slurm script: one allocation, in which a head and workers run for as long as the study does."""

import shlex
from importlib.resources import files

from cluster.manifests.text import as_comment, as_steps, resource_name
from cluster.manifests.workers import workers_for
from study.spec import StudySpec
from study.yaml_file import to_yaml

GRACE_S = 120
HOURS = 24
UNREAD = "# shellcheck disable=SC2016 # nothing in it is meant for a shell"

COMMENT = """\
Canopoint: the study {study} on Slurm, in one allocation.

{steps}

Near the end of its time the job stops its trials at their last epoch and puts itself into the queue again, until the
study is complete. What sbatch is told goes before the lines above, as in `sbatch --nodes=4 --gpus-per-node=8 FILE`.
The key for W&B, if any, is in ~/.netrc (wandb login). Ray's token is made when the job starts.
"""
STEPS = (
    ("source .venv/bin/activate", "or whatever brings canopoint and ray; nodes see what you see"),
    ("sbatch FILE", "in a folder that every node sees; relative paths of the study count from there"),
    ("scancel --batch --signal=TERM JOB", "ends it cleanly; sbatch continues it"),
)


def render(spec: StudySpec) -> str:
    """The batch script of a study, which is in it word for word."""
    name, workers = resource_name(spec.study), workers_for(spec.resources)
    options = {
        "job-name": name,
        "output": f"{name}-%j.log",
        "open-mode": "append",
        "nodes": workers.num,
        "ntasks-per-node": 1,
        "cpus-per-task": workers.cpus,
        **({"gpus-per-node": workers.gpus} if workers.gpus else {}),
        "mem": f"{workers.memory_gib}G",
        "time": f"{HOURS}:00:00",
        "signal": f"B:USR1@{GRACE_S}",
    }
    directives = [f"#SBATCH --{option}={value}\n" for option, value in options.items()]
    directives += ["#SBATCH --requeue\n", "#SBATCH --no-kill\n"]  # back after preemption; alive without a lost node
    study = f"{UNREAD}\nstudy={shlex.quote(to_yaml(spec.to_mapping()))}\n"
    body = (files("cluster.manifests") / "slurm_job.sh").read_text()
    return "#!/bin/bash\n" + "".join(
        [*directives, "#\n", as_comment(COMMENT.format(study=spec.study, steps=as_steps(STEPS))), study, body]
    )
