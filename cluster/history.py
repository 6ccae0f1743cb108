"""What a ledger says of a study's sessions and trials, in one pass over it: no event is kept."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.limits import Limits, limits_so_far
from study.ledger import LEDGER_FILE, Event, iter_events
from study.spec import StudySpec
from trainable.config import InputError

TRIAL_ID = re.compile(r"[0-9a-f]{12}")
LARGEST = 1e11
NUMBER = (int, float)

FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "session_started": {"host": str, "pid": int},
    "session_ended": {"reason": str, "detail": str},
    "proposed": {"trials": list},
    "trial_started": {"trial_id": str, "phase": str},
    "trial_ended": {"trial_id": str, "phase": str, "state": str, "reason": str, "time_s": NUMBER},
    "repaired": {"lost": int},
}
"""Kind of event -> its fields that are read here. A ledger may be anyone's."""


@dataclass
class History:
    """What has happened, as far as the ledger says.

    Attributes:
        limits: what was used of the budget, up to the last event.
        session: the latest session's first event, and `end` its last; None where there is none.
        last: unix time of the last event.
        phases: trial id -> phase.
        ends: trial id -> (state, reason) of its latest end.
        live: ids of the trials that the latest session has started and not ended.
        listed: trials that the latest session proposed, or started.
        settings: the trials of every proposed setting.
        trial_s: seconds trained by the trials that ended in the latest session.
        num_repairs: how often the ledger was found damaged; `num_lost` events are gone.
    """

    limits: Limits
    session: Event | None = None
    end: Event | None = None
    last: float = 0.0
    phases: dict[str, str] = field(default_factory=dict)
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    settings: list[list[str]] = field(default_factory=list)
    trial_s: float = 0.0
    num_repairs: int = 0
    num_lost: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the latest session left nothing to do."""
        return self.end is not None and self.end["reason"] == "complete"

    def add(self, event: Event) -> None:
        """Takes one more event into account."""
        self.last = event["time"]
        kind, trial_id = event["event"], event.get("trial_id", "")
        if kind == "session_started":
            self.session, self.end, self.live, self.trial_s = event, None, set(), 0.0
            self.listed = set()
        elif kind == "session_ended":
            self.end = event
        elif kind == "proposed":
            self.settings.append(event["trials"])
            self.listed.update(event["trials"])
        elif kind == "repaired":
            self.num_repairs += 1
            self.num_lost += event["lost"]
        elif kind == "trial_started":
            self.live.add(trial_id)
            self.listed.add(trial_id)
            self.phases[trial_id] = event["phase"]
        elif kind == "trial_ended":
            self.live.discard(trial_id)
            self.phases[trial_id] = event["phase"]
            self.ends[trial_id] = event["state"], event["reason"]
            self.trial_s += event["time_s"]
        elif kind == "confirming":
            self.listed.update(event.get("trials", []))
            self.phases.update(dict.fromkeys(event.get("trials", []), "confirm"))


def read_history(folder: Path, spec: StudySpec) -> History:
    """Reads a study's ledger; changes nothing.

    Raises:
        InputError: it holds an event that no driver writes.
    """
    history = History(Limits(spec))
    history.limits = limits_so_far(spec, _followed(folder, history))
    return history


def _followed(folder: Path, history: History) -> Iterator[Event]:
    for event in iter_events(folder):
        _check(event, folder)
        history.add(event)
        yield event


def _check(event: Event, folder: Path) -> None:
    where = f"{folder / LEDGER_FILE}: event {event['seq']} ({event['event'][:40]})"
    wanted = {"time": NUMBER, **FIELDS.get(event["event"], {})}
    for name, kind in wanted.items():
        value: Any = event.get(name)
        # Not NaN either. Beyond that number a clock has no date, and no study so many seconds.
        if not isinstance(value, kind) or (isinstance(value, NUMBER) and not abs(value) <= LARGEST):
            raise InputError(f"{where}: {name} is {value!r:.40}; no canopoint wrote this, remove the file")
    ids = [event["trial_id"]] if "trial_id" in wanted else event.get("trials", [])
    if not isinstance(ids, list) or not all(isinstance(each, str) and TRIAL_ID.fullmatch(each) for each in ids):
        raise InputError(f"{where}: {ids!r:.60} are no trials; no canopoint wrote this, remove the file")
