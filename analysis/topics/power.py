"""What more seeds would show: the smallest difference that is found, and the seeds that the margin takes."""

from typing import Any

from analysis.findings import Claim, Findings, Topic
from analysis.power import Power, PowerRow, PowerTarget, plan_power, size_text, target_sentences
from analysis.reading.runs import StudyRuns
from analysis.spread import find_spread
from analysis.wording import counted

SHOWN = (3, 5, 8, 12, 20)
"""Numbers of seeds in the table; `canopoint power` gives any."""


def find_power(runs: StudyRuns, findings: Findings) -> Topic | None:
    """None where there are no two levels, and where no cell was run twice, so that nothing is known of noise."""
    if find_spread(runs, findings) is None:
        return None
    power = plan_power(runs, findings, SHOWN)
    columns = {
        "subject": "seeds, or what they are to tell",
        "difference": "smallest difference found with a chance of 80 %",
        "num_seeds": "seeds at each level",
        "num_trials": "trials",
        "hours": power.hours_unit,
    }
    return Topic(
        name="power",
        title="What more seeds would show",
        unit=power.metric,
        population="seeds",
        text=_text(power),
        columns={key: name for key, name in columns.items() if key != "hours" or power.seed_hours is not None},
        claims=[
            *(Claim(target.subject, None, _values(target), "", power.run_ids) for target in power.targets),
            *(Claim(counted(row.num_seeds, "seed"), None, _values(row), "", power.run_ids) for row in power.rows),
        ],
    )


def _text(power: Power) -> str:
    spread = power.spread
    kind = "Paired differences" if spread.paired else "Differences of two single runs"
    between = f"(95 %: {size_text(spread.low)} to {size_text(spread.high)})"
    known = f"{kind} vary by {size_text(spread.value)} between seeds {between}"
    return " ".join([*target_sentences(power)[:1], f"{known}; seeds needed go with its square."])


def _values(of: PowerRow | PowerTarget) -> dict[str, Any]:
    difference = of.detectable if isinstance(of, PowerRow) else of.difference
    return {"difference": difference, "num_seeds": of.num_seeds, "num_trials": of.num_trials, "hours": of.hours}
