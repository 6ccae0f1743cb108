"""`make chaos`: a small study, killed again and again at random moments, must come out as if nothing had happened.

    python -m bench.chaos --workers 50 --drivers 20 --terms 30 --nodes 10

    workers  kill -9 of a trial's process
    drivers  kill -9 of the driver and everything it has started, then the same command again
    terms    SIGTERM to the driver, kill -9 to it and the rest where it is still there after 5 s, then the same again
    nodes    one of two raylets is killed with all that runs on it, then another is added

The study is run once undisturbed, then as often as it takes to use up the kills, from nothing to its end each time.
Afterwards every trial must be there once, with the result of the undisturbed run, and no kill may have cost a trial
more than one epoch. Writes build/chaos.json; ends with 1 where something is wrong. Times are reported, never enforced.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.chaos_cluster import ray_startup_s
from bench.chaos_driver import RunFailedError, run_undisturbed
from bench.chaos_kinds import KINDS, Round
from bench.chaos_report import Tally, table
from bench.chaos_study import Scale, StudyCopy
from bench.chaos_verdict import count_reruns, judge
from bench.processes import TimeUpError, descendants, kill_trees, process

RESULTS = Path("build/chaos.json")
MAX_STUDIES = 100
CLEAN, WRONG, INTERRUPTED = 0, 1, 130


def main(argv: list[str] | None = None) -> int:
    """Disturbs the study in every way asked for; returns the exit code."""
    arguments = _parser().parse_args(argv)
    counts = {kind: getattr(arguments, kind) for kind in KINDS if getattr(arguments, kind)}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # Ray's sockets may have 107 characters in all, and the driver must find the folder short enough, too.
    scratch = Path(tempfile.mkdtemp(prefix="ch-"))
    exit_code = _run(scratch, arguments.seed, counts)
    if exit_code != WRONG:
        shutil.rmtree(scratch, ignore_errors=True)
    return exit_code


def _run(scratch: Path, seed: int, counts: Mapping[str, int]) -> int:
    try:
        return CLEAN if disturb_all(scratch, seed, counts) else WRONG
    except (RunFailedError, TimeUpError) as error:
        say(f"WRONG: {error}")
        return WRONG
    except KeyboardInterrupt:
        say("interrupted; nothing that was started here runs on")
        return INTERRUPTED
    finally:
        own = process(os.getpid())
        kill_trees(descendants(own) if own else [])  # nothing, unless the interrupt came in between


def disturb_all(scratch: Path, seed: int, counts: Mapping[str, int]) -> bool:
    """Runs all kinds, writes and prints the figures; returns whether everything came out as it should."""
    say(f"seed {seed}")
    chaos = Chaos.begin(scratch, seed, Scale())
    tallies: dict[str, Tally] = {}
    for kind, count in counts.items():
        tallies[kind] = chaos.disturb(kind, count)
        write_results(seed, tallies)
    print(table({kind: tally.describe() for kind, tally in tallies.items()}), flush=True)
    return all(tally.is_clean for tally in tallies.values())


def write_results(seed: int, tallies: Mapping[str, Tally]) -> None:
    """Writes what is known by now."""
    results = {
        "seed": seed,
        "clean": all(tally.is_clean for tally in tallies.values()),
        "kinds": {kind: tally.describe() for kind, tally in tallies.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Chaos:
    """The study, how it comes out when nobody disturbs it, and where it is run.

    Attributes:
        scratch: a folder with a short name; the studies that came out wrong stay in it.
        seed: of the moments of the kills.
        environment: of the processes that are started.
        undisturbed: trial id -> hash of its result.
    """

    scratch: Path
    seed: int
    scale: Scale
    environment: Mapping[str, str]
    undisturbed: Mapping[str, str]

    @classmethod
    def begin(cls, scratch: Path, seed: int, scale: Scale) -> Self:
        """Runs the study once without disturbance."""
        environment = {"TMPDIR": str(scratch), "WANDB_ERROR_REPORTING": "false"}
        say(f"the study without disturbance, in {scratch}")
        copy = StudyCopy.make(scratch / "undisturbed", scale.study())
        started = time.monotonic()
        undisturbed = run_undisturbed(copy, environment)
        say(f"{len(undisturbed)} trials in {time.monotonic() - started:.0f} s")
        shutil.rmtree(copy.folder)
        return cls(scratch, seed, scale, environment, undisturbed)

    def disturb(self, kind: str, count: int) -> Tally:
        """Runs the study as often as it takes to use up the kills.

        Raises:
            RunFailedError: a run did not end well.
            TimeUpError: nothing happened for too long.
        """
        tally = Tally()
        say(f"{kind}: {count} kills")
        self._start_ray_alone(tally)
        for number in range(1, MAX_STUDIES + 1):
            self._run_one(kind, number, count - len(tally.kills), tally)
            if len(tally.kills) == count:
                self._start_ray_alone(tally)
                return tally
        raise RunFailedError(f"{kind}: {MAX_STUDIES} studies were at their end before {count} kills fell into them")

    def _start_ray_alone(self, tally: Tally) -> None:
        """Measures what recovery is compared with, on a machine as busy as it is now."""
        tally.ray_startups_s.append(ray_startup_s(self.scratch / "bare", self.environment))
        say(f"Ray alone starts in {tally.ray_startups_s[-1]:.1f} s")

    def _run_one(self, kind: str, number: int, most: int, tally: Tally) -> None:
        """Runs the study from nothing to its end and judges it; its files go unless something is wrong."""
        copy = StudyCopy.make(self.scratch / f"{kind}-{number}", self.scale.study())
        moments = random.Random(f"{self.seed} {kind} {number}")
        run = Round(copy, most, moments, self.scratch, self.environment, _under(f"{kind} {number}"))
        KINDS[kind](run)
        verdict, reruns = judge(copy, self.undisturbed), count_reruns(copy, run.kills)
        tally.kills += run.kills
        tally.studies.append((verdict, reruns))
        outcome = "as undisturbed" if verdict.is_clean else f"WRONG: {verdict}; see {copy.folder}"
        run.say(f"at its end after {len(run.kills)} kills: {outcome}; {reruns.whole} epochs trained again")
        if verdict.is_clean and reruns.worst <= 1:
            shutil.rmtree(copy.folder)


def say(line: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _under(title: str) -> Callable[[str], None]:
    return lambda line: say(f"{title}: {line}")


def _interrupt(*_: object) -> None:
    """Ends all that was started, on the way out; a second signal does not cut that short, as it has an end itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(f"a number of kills, got {number}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description="Kills a study at random moments.")
    for kind, disturb in KINDS.items():
        parser.add_argument(f"--{kind}", type=_count, default=0, metavar="N", help=disturb.__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the moments (a new one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
