"""A small study on a test cluster, by the commands that a user types: submit, stop, resume and the rest."""

import time
from dataclasses import dataclass
from pathlib import Path

from bench.chaos_cluster import TwoNodes
from bench.chaos_driver import run_undisturbed
from bench.chaos_study import NAME, StudyCopy
from bench.commands import Command
from bench.hosts import LOOPBACK, Host
from bench.processes import Process, wait_for
from bench.traces import command_line
from study.spec import load_study

WITHIN_S = 240.0
TIDY_WITHIN_S = 20.0
NUM_TRIALS = 4
SETTINGS = (
    f"study={NAME}",
    "data.synthetic={num_scenes: 3, images_per_scene: 4, image_size: 32}",
    "training.image_size=32",
    "training.epochs=10",
    "training.batch_size=4",
    "parameters.learning_rate.values=[3e-3]",
    "parameters.focal_gamma.values=[0]",
    "search.seeds=[0]",
    "confirm.seeds=[100]",
)
"""What makes the demo small: two trials explore, two confirm."""


@dataclass(frozen=True)
class ClusterStudy:
    """The demo, small, with a folder of its own that all nodes see.

    Attributes:
        folder: where commands are typed; the study's storage lies in it.
        host: from which they are typed.
    """

    folder: Path
    cluster: TwoNodes
    host: Host = LOOPBACK[0]

    @property
    def copy(self) -> StudyCopy:
        """What is on disk of the study."""
        return StudyCopy(self.folder)

    def command(self, *arguments: str) -> Command:
        """A command with the cluster's address and token."""
        address = ("--address", self.cluster.jobs_url)
        return Command(self.folder, self.cluster.environment, *arguments, *address, host=self.host)

    def submit(self, *options: str) -> Command:
        """Hands the study over, as often as it is asked."""
        settings = [*SETTINGS, f"storage={self.folder / 'studies'}"]
        return self.command("submit", "demo", *(part for each in settings for part in ("--set", each)), *options)

    def say(self, *arguments: str) -> tuple[int, str]:
        """A command to its end: (exit code, what it said)."""
        with self.command(*arguments) as command:
            return command.wait(WITHIN_S), command.said

    def wait_until_it_trains(self, command: Command) -> str:
        """Waits until an epoch is on disk that was not there before; returns the job's name.

        Raises:
            RuntimeError: the command has ended before.
        """
        since = time.time()
        wait_for(lambda: self.copy.went_on(since) or command.has_ended, WITHIN_S, f"an epoch; see {command.log}")
        if command.has_ended:
            raise RuntimeError(f"it ended before an epoch: {command.said}")
        return next(word for word in command.said.split() if word.startswith(f"canopoint-{NAME}-"))

    def wait_until_the_second_node_trains(self, command: Command) -> list[str]:
        """Waits for trials there; returns their ids."""
        workers: set[str] = set()

        def trains() -> bool:
            workers.update(self.copy.live(self.cluster.workers))
            return bool(workers) or command.has_ended

        wait_for(trains, WITHIN_S, f"a trial on the second node; see {command.log}")
        return sorted(workers)

    def processes(self) -> list[Process]:
        """What works for a study on the cluster: drivers, trials, W&B."""
        words = ("canopoint", "wandb", "ResourceTrainable")
        return [each for each in self.cluster.processes if any(word in " ".join(command_line(each)) for word in words)]

    def wait_until_nothing_runs(self) -> None:
        """Waits until no process works for a study any more."""
        wait_for(lambda: not self.processes(), TIDY_WITHIN_S, f"the end of what works on {self.cluster.address}")


def undisturbed_hashes(scratch: Path) -> dict[str, str]:
    """What comes out of the study on this machine alone: trial id -> hash of its result."""
    copy = StudyCopy.make(scratch / "undisturbed", load_study("demo", list(SETTINGS)).to_mapping())
    return run_undisturbed(copy, {"TMPDIR": str(scratch)})
