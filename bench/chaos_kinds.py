"""Four ways to disturb a running study, each until its share of kills is used up or the study has come to its end."""

import random
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.chaos_cluster import two_nodes
from bench.chaos_driver import Driver
from bench.chaos_study import Standing, StudyCopy
from bench.chaos_verdict import Kill
from bench.processes import kill_trees, wait_for

WAIT_S = 240.0
"""Longest wait for the next epoch; what takes longer has not recovered."""
PAUSE_S = 3.0
"""Kills fall within this time after trials were seen training: some epochs."""
EARLY = 0.2
"""Share of the drivers that are killed while they start."""
GRACE_S = 5.0
"""From SIGTERM to SIGKILL."""


@dataclass
class Round:
    """One run of the study from nothing to its end, disturbed on the way.

    Attributes:
        most: kills at most.
        scratch: for Ray's files.
        environment: of the processes that are started.
        say: told of every kill.
    """

    copy: StudyCopy
    most: int
    random: random.Random
    scratch: Path
    environment: Mapping[str, str]
    say: Callable[[str], None]
    kills: list[Kill] = field(default_factory=list)

    @property
    def is_spent(self) -> bool:
        """Whether no kill is left."""
        return len(self.kills) >= self.most

    def add(self, kill: Kill) -> None:
        """Keeps a kill."""
        self.kills.append(kill)
        epochs = ", ".join(f"{each.trial_id} at epoch {each.rows}" for each in kill.hit)
        self.say(f"kill {len(self.kills)}: {epochs or 'no trial was training'}")

    def add_recovery(self, since: float, driver: Driver, trial_ids: Collection[str] | None = None) -> None:
        """Waits until trials go on, or the driver ends because none is left, and keeps the time with the last kill."""
        self.wait_for(driver, lambda: self.copy.went_on(since, trial_ids), "an epoch after a kill")
        if self.kills and self.copy.went_on(since, trial_ids):
            seconds = time.time() - since
            self.kills[-1] = replace(self.kills[-1], recovery_s=seconds)
            self.say(f"the next epoch is on disk after {seconds:.1f} s")

    def wait_for(self, driver: Driver, condition: Callable[[], bool], what: str) -> None:
        """Waits for something, or for the driver's end."""
        wait_for(lambda: driver.has_ended or condition(), WAIT_S, f"{what}; see {self.copy.log}")

    def pause(self, longest_s: float = PAUSE_S) -> None:
        """Lets a random time pass."""
        time.sleep(self.random.uniform(0, longest_s))

    def standing(self, trial_ids: Collection[str]) -> tuple[Standing, ...]:
        """How these trials stand, without those that have just ended."""
        return tuple(each for each in self.copy.unfinished() if each.trial_id in trial_ids)


def kill_workers(run: Round) -> None:
    """Kills the process of one trial, and again."""
    with Driver(run.copy, run.environment) as driver:
        while not (run.is_spent or driver.has_ended):
            run.wait_for(driver, lambda: bool(run.copy.live(driver.below())), "a live trial")
            run.pause()
            live = run.copy.live(driver.below())
            if not live:
                continue  # the last trial ended meanwhile, or the next is about to begin
            trial_id = run.random.choice(sorted(live))
            moment = time.time()
            kill_trees([live[trial_id]])
            run.add(Kill(moment, run.standing([trial_id])))
            if run.kills[-1].hit:
                run.add_recovery(moment, driver, [trial_id])
        driver.run_to_end()


def kill_drivers(run: Round) -> None:
    """Kills the driver and all it has started, and gives the same command again."""

    def strike(driver: Driver) -> Kill:
        live = run.copy.live(driver.below())
        moment = time.time()
        driver.kill()
        return Kill(moment, run.standing(live))

    _strike_drivers(run, strike)


def terminate_drivers(run: Round) -> None:
    """Asks the driver to end, kills it where it has not after some seconds, and gives the same command again."""

    def strike(driver: Driver) -> Kill:
        live = run.copy.live(driver.below())
        moment = time.time()
        ending = driver.end(signal.SIGTERM, GRACE_S)
        run.say(f"SIGTERM: exit code {ending.exit_code} after {ending.took_s:.1f} s")
        return Kill(moment, run.standing(live), None, ending.exit_code, ending.took_s, ending.left_behind)

    _strike_drivers(run, strike)


def lose_nodes(run: Round) -> None:
    """Kills one of two raylets with all its workers, and adds another."""
    with (
        two_nodes(run.scratch / f"ray-{run.copy.folder.name}", run.environment) as cluster,
        Driver(run.copy, cluster.environment, "--address", cluster.address) as driver,
    ):
        while not (run.is_spent or driver.has_ended):
            run.wait_for(driver, lambda: bool(run.copy.live(cluster.workers)), "a live trial on the second node")
            run.pause()
            live = run.copy.live(cluster.workers)
            if not live:
                continue
            moment = time.time()
            cluster.lose_node()
            run.add(Kill(moment, run.standing(live)))
            run.pause()
            cluster.add_node()
            if run.kills[-1].hit:
                run.add_recovery(moment, driver, live)
        driver.run_to_end()


def _strike_drivers(run: Round, strike: Callable[[Driver], Kill]) -> None:
    """Strikes one driver after the other while kills are left, most of them after their first epoch."""
    while True:
        with Driver(run.copy, run.environment) as driver:
            if not run.is_spent and run.random.random() < EARLY:
                run.pause(2 * PAUSE_S)
            else:
                run.add_recovery(driver.started, driver)
                run.pause()
            if run.is_spent or driver.has_ended:
                driver.run_to_end()
                return
            run.add(strike(driver))


KINDS: dict[str, Callable[[Round], None]] = {
    "workers": kill_workers,
    "drivers": kill_drivers,
    "terms": terminate_drivers,
    "nodes": lose_nodes,
}
