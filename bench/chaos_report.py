"""What came of all kills of a kind: figures for build/chaos.json and a table for a person."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.chaos_verdict import Kill, Reruns, Verdict

ALLOWED_ABOVE_RAY_S = 10.0
"""What the median recovery may take beyond the start-up of a bare Ray."""


@dataclass
class Tally:
    """One kind of kill.

    Attributes:
        ray_startups_s: of a bare Ray, before the first kill and after the last.
        kills: one after the other.
        studies: how each run of the study came out, with what was trained twice.
    """

    ray_startups_s: list[float] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    studies: list[tuple[Verdict, Reruns]] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is lost, doubled or different, and no kill cost a trial more than an epoch."""
        return all(verdict.is_clean and reruns.worst <= 1 for verdict, reruns in self.studies)

    def describe(self) -> dict[str, Any]:
        """The figures."""
        return {
            "kills": len(self.kills),
            "live_trials_hit": sum(len(kill.hit) for kill in self.kills),
            "studies": len(self.studies),
            "rerun_epochs": sum(reruns.whole for _, reruns in self.studies),
            "worst_rerun": max((reruns.worst for _, reruns in self.studies), default=0),
            "partial_epochs": sum(reruns.partial for _, reruns in self.studies),
            "mismatches": sum(len(verdict.mismatches) for verdict, _ in self.studies),
            "missing": sum(len(verdict.missing) for verdict, _ in self.studies),
            "duplicated": sum(len(verdict.duplicated) for verdict, _ in self.studies),
            **self._times(),
        }

    def _times(self) -> dict[str, Any]:
        recoveries = [kill.recovery_s for kill in self.kills if kill.recovery_s is not None]
        asked = [kill for kill in self.kills if kill.exit_code is not None]
        return {
            "recoveries": len(recoveries),
            "recovery_median_s": statistics.median(recoveries) if recoveries else None,
            "recovery_max_s": max(recoveries, default=None),
            "ray_startup_s": statistics.mean(self.ray_startups_s),
            "exits_with_3": sum(kill.exit_code == 3 for kill in asked),
            "longest_exit_s": max((kill.took_s or 0.0 for kill in asked), default=None),
            "left_behind": sum(kill.left_behind for kill in self.kills),
        }


def table(described: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures for a person, a line for each kind."""
    head = f"{'':<8} {'kills':>5} {'epochs trained again':>21} {'most':>5} {'wrong':>6} {'missing':>8} {'doubled':>8}"
    lines = [f"{head}  recovery: median, longest"]
    for kind, found in described.items():
        again = f"{found['rerun_epochs']} + {found['partial_epochs']} partly"
        counts = f"{found['worst_rerun']:>5} {found['mismatches']:>6} {found['missing']:>8} {found['duplicated']:>8}"
        lines.append(f"{kind:<8} {found['kills']:>5} {again:>21} {counts}  {_recovery(found)}")
    return "\n".join(lines)


def _recovery(found: Mapping[str, Any]) -> str:
    if found["recovery_median_s"] is None:
        return "none measured"
    allowed = found["ray_startup_s"] + ALLOWED_ABOVE_RAY_S
    verdict = "reached" if found["recovery_median_s"] <= allowed else "MISSED"
    times = f"{found['recovery_median_s']:.1f} s, {found['recovery_max_s']:.1f} s"
    return f"{times} (median at most {allowed:.1f} s, Ray alone {found['ray_startup_s']:.1f} s: {verdict})"
