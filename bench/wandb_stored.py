"""A run as our stand-in for W&B keeps it, and as it shows it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
"""Files of the client's stream that we keep; events and console output are let go."""


@dataclass
class StoredRun:
    """One run, as the client sent it.

    Attributes:
        config: as W&B keeps it: name -> {"value": ...}.
        lines: the history, a JSON text per row; NaN and infinities bare.
        state: running, finished, failed or crashed.
    """

    entity: str
    project: str
    name: str
    display_name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    state: str = "running"
    exit_code: int | None = None
    created_at: str = field(default_factory=lambda: now())
    heartbeat_at: str = field(default_factory=lambda: now())
    files: dict[str, bytes] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """The history, parsed."""
        return [json.loads(line) for line in self.lines]

    def take_stream(self, sent: Mapping[str, Any]) -> None:
        """Takes a request of the file stream: lines from an offset on, the summary, the end."""
        self.heartbeat_at = now()
        for name, chunk in (sent.get("files") or {}).items():
            if name == HISTORY:
                self.lines[chunk["offset"] :] = chunk["content"]
            elif name == SUMMARY:
                self.summary = json.loads(chunk["content"][-1])
        if sent.get("complete"):
            self.exit_code = int(sent["exitcode"])
            self.state = "failed" if self.exit_code else "finished"

    def node(self) -> dict[str, Any]:
        """The fields of `RunFragment`; what JSON has no number for goes as text, as W&B's backend writes it."""
        return {
            "id": f"id-{self.name}",
            "projectId": "1",
            "name": self.name,
            "displayName": self.display_name,
            "tags": self.tags,
            "sweepName": None,
            "state": self.state,
            "config": json.dumps(as_json(self.config)),
            "group": self.group,
            "jobType": self.job_type,
            "commit": None,
            "readOnly": False,
            "createdAt": self.created_at,
            "heartbeatAt": self.heartbeat_at,
            "description": self.notes,
            "notes": self.notes,
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(as_json(self.summary)),
            "historyLineCount": len(self.lines),
            "user": {"name": "Someone", "username": "someone"},
            "historyKeys": {"lastStep": self.last_step(), "keys": {}, "sets": []},
        }

    def last_step(self) -> int:
        """Of the last row; -1 where there is none."""
        return int(json.loads(self.lines[-1])["_step"]) if self.lines else -1


def as_json(value: Any) -> Any:
    """A value with NaN and infinities as text."""
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def now() -> str:
    """As W&B writes times."""
    return datetime.now(UTC).isoformat()
