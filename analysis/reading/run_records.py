"""A W&B run file -> one WandbRun. With `wandb_api.py`, the only place that knows W&B's formats.

A record of a run file (`run_files.py`) is a protobuf `Record`. What is left out is named in the run's `problems`.
Run files come from other machines: none of them can raise anything but an InputError that names it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from analysis.reading.history import HistoryDraft
from analysis.reading.run_files import iter_frames
from analysis.reading.wandb_runs import MAX_NESTING, WandbRun

PLAIN_ITEM = re.compile(
    rb"\n.\x12.([ -~]+)\x82\x01.(-?(?:0|[1-9]\d{0,17})(?:\.\d{1,40})?(?:[eE][+-]?\d{1,4})?|NaN|-?Infinity)", re.DOTALL
)
"""An item of a history or summary record as almost all are: one key of ASCII letters, and a number as JSON and W&B have
it, no longer than a float or an integer of 8 bytes is written. Its bytes: tag and length of the item, tag and length of
the key, the key, tag (of two bytes) and length of the value, the value."""


def read_run(path: Path) -> WandbRun:
    """One run file.

    Raises:
        InputError: the file cannot be read, or is no W&B run file of the known version.
    """
    draft = _Draft(run_id=path.stem.removeprefix("run-"))
    for payload in iter_frames(path, draft.problems):
        try:
            record = Record.FromString(payload)
        except DecodeError:
            draft.note("a record that is no W&B record, left out")
            continue
        apply = _HANDLERS.get(record.WhichOneof("record_type"))
        if apply:
            apply(draft, record)
    return draft.finish(path)


@dataclass
class _Draft:
    """A run while its records are read."""

    run_id: str
    group: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: HistoryDraft = field(default_factory=HistoryDraft)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    problems: list[str] = field(default_factory=list)
    _numbers: dict[bytes, bytes] = field(default_factory=dict)  # of the summary

    def note(self, problem: str) -> None:
        """Once each: a hostile file must not make a long list of them."""
        if problem not in self.problems:
            self.problems.append(problem)

    def add_run(self, record: Any) -> None:
        """Take the names and the config; the record comes again when a name changes."""
        self.run_id = record.run.run_id or self.run_id
        self.group = record.run.run_group or self.group
        self.name = record.run.display_name or self.name
        self._update_config(record.run.config)

    def add_config(self, record: Any) -> None:
        self._update_config(record.config)

    def _update_config(self, change: Any) -> None:
        """Merge mappings key by key, as the public reader does, and replace anything else."""
        for keys, value in self._values(change.update):
            _assign(self.config, keys, value, merge=True)
        for item in change.remove:
            _remove(self.config, _keys(item))

    def add_summary(self, record: Any) -> None:
        """Replace values by later ones, mappings too."""
        plain = _plain_items(record.summary)
        if plain is not None:
            self._numbers.update(plain)
            return
        values = list(self._values(record.summary.update))
        if values or record.summary.remove:
            self._take_numbers()
        for keys, value in values:
            _assign(self.summary, keys, value, merge=False)
        for item in record.summary.remove:
            _remove(self.summary, _keys(item))

    def _take_numbers(self) -> None:
        """Decode what was not overwritten: each row comes with a summary, of which only the last remains."""
        numbers = {key.decode(): json.loads(text) for key, text in self._numbers.items() if key[:1] != b"_"}
        self.summary.update(numbers)
        self._numbers.clear()

    def add_row(self, record: Any) -> None:
        """One logged row; rows that hold W&B's own keys only are left out."""
        record.history.ClearField("step")
        plain = _plain_items(record.history)
        if plain is None:
            row = [(".".join(keys), value) for keys, value in self._values(record.history.item)]
        else:
            row = [(key.decode(), float(text)) for key, text in plain if key[:1] != b"_"]
        if row:
            self.history.add(row)

    def add_exit(self, record: Any) -> None:
        self.exit_code = int(record.exit.exit_code)

    def _values(self, items: Iterable[Any]) -> Iterator[tuple[list[str], Any]]:
        """Key path and decoded value of each item that is the user's."""
        for item in items:
            keys = _keys(item)
            if keys[0].startswith("_"):
                continue
            try:
                yield keys, _decode(keys, item.value_json)
            except ValueError:
                self.note(f"an unreadable value of {keys[0][:80]!r}, left out")

    def finish(self, path: Path) -> WandbRun:
        """The whole, with what is odd about it."""
        self._take_numbers()
        if self.exit_code is None:
            self.note("no exit record")
        if not self.history.num_rows:
            self.note("no rows")
        if self.history.num_too_many:
            self.note(f"{self.history.num_too_many} metrics too many, left out")
        return WandbRun(
            run_id=self.run_id,
            group=self.group,
            name=self.name,
            config=self.config,
            history=self.history.finish(),
            summary=self.summary,
            exit_code=self.exit_code,
            path=path,
            problems=tuple(self.problems),
        )


_HANDLERS: dict[str | None, Callable[[_Draft, Any], None]] = {
    "run": _Draft.add_run,
    "config": _Draft.add_config,
    "summary": _Draft.add_summary,
    "history": _Draft.add_row,
    "exit": _Draft.add_exit,
}
"""Type of record -> what it adds to the run; all other types (telemetry, files, ...) hold nothing of ours."""


def _plain_items(message: Any) -> list[tuple[bytes, bytes]] | None:
    """(key, number) of every item, where all are plain: four times as fast as to ask the message for each."""
    content = message.SerializeToString()
    items = PLAIN_ITEM.findall(content)
    return items if 7 * len(items) + sum(map(len, chain.from_iterable(items))) == len(content) else None


def _keys(item: Any) -> list[str]:
    return list(item.nested_key) or [item.key]


def _decode(keys: list[str], text: str) -> Any:
    """W&B's JSON, which writes NaN and Infinity bare.

    Raises:
        ValueError: not JSON, nested too deep, or half a surrogate pair in a string, which nothing could print.
    """
    if len(keys) > MAX_NESTING or (text[:1] in ("[", "{") and len(keys) + _nesting(text) > MAX_NESTING):
        raise ValueError(f"nested deeper than {MAX_NESTING}")
    value = json.loads(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _nesting(text: str) -> int:
    """Depth of a JSON text, before parsing. Brackets within strings count: no value of ours has 32 unclosed ones."""
    steps = (1 if bracket.group() in "[{" else -1 for bracket in re.finditer(r"[\[\]{}]", text))
    return max(accumulate(steps), default=0)


def _assign(target: dict[str, Any], keys: list[str], value: Any, *, merge: bool) -> None:
    """Set `value` at the path `keys`, making the mappings on the way."""
    for key in keys[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            inner = target[key] = {}
        target = inner
    if merge and isinstance(value, dict) and isinstance(target.get(keys[-1]), dict):
        for key, inner in value.items():
            _assign(target[keys[-1]], [key], inner, merge=True)
    else:
        target[keys[-1]] = value


def _remove(target: dict[str, Any], keys: list[str]) -> None:
    """Take the path `keys` out; nothing where it is not there."""
    for key in keys[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            return
        target = inner
    target.pop(keys[-1], None)
