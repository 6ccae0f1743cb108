"""Trials that are tried again after a failure."""

import re
from collections import Counter, deque
from dataclasses import dataclass, field

from cluster.preemption import NodeWatch, taken_node
from cluster.preparation import Say
from study.design import Trial
from trainable.object_store import StoreError

STORE_ERROR = re.compile(r"\bStoreError: (?:\[Errno \d+\] )?(.+)")


@dataclass
class Retries:
    """Counts failures, and hands out again the trials that may be tried once more.

    Tune's own retries are not used. They count a node that was shut down on purpose, and they spare no trial whose
    process, taken over from another one, was dead already.

    Attributes:
        most: times that a trial may fail and be tried again. A move to another node is no failure.
        nodes: told of nodes that are gone.
    """

    most: int
    nodes: NodeWatch
    say: Say
    _failures: Counter[str] = field(default_factory=Counter)
    _waiting: deque[Trial] = field(default_factory=deque)

    def take(self, trial: Trial, error: str) -> bool:
        """Takes a trial that did not come to its end; returns whether it is tried again.

        Args:
            trial: it.
            error: what Tune wrote down.

        Raises:
            StoreError: the object store was away for longer than a worker's patience. No trial is to blame, and where
                one fails for it all will: the run ends, and the next one goes on from their checkpoints.
        """
        if node_id := taken_node(error):
            self.nodes.tell_gone(node_id)
        elif found := STORE_ERROR.findall(error):
            raise StoreError(found[-1])
        elif self._failures[trial.trial_id] == self.most:
            return False
        else:
            self._failures[trial.trial_id] += 1
            tried = f"{self._failures[trial.trial_id]} of {self.most}"
            self.say(f"{trial.name}: {failure_reason(error)}; tried again ({tried})")
        self._waiting.append(trial)
        return True

    def next_trial(self) -> Trial | None:
        """The trial that has waited longest, if any does."""
        return self._waiting.popleft() if self._waiting else None


def failure_reason(error: str) -> str:
    """The last line of an error, which names it; the lines before it are Ray's way to it."""
    lines = error.strip().splitlines()
    return lines[-1].strip() if lines else "no reason is known"
