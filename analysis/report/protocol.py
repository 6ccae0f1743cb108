"""What a report says of the data, and of how the runs were made and read."""

from collections import Counter

import pandas as pd

from analysis.findings import SCIENTIFIC, Findings
from analysis.grid import Cell, level_order
from analysis.reading.completeness import DIVERGED, STOPPED
from analysis.reading.runs import StudyRuns
from analysis.reading.study_terms import EXPLORE
from analysis.statistics import number_text
from analysis.wording import level_text, listed, percent, settings_text, words

Rows = list[tuple[str, str]]

PAIRED = (
    "A seed is a block: the same draw of points, the same starting weights and the same image order in every cell,"
    " so that differences are paired by seed; two levels are compared on the seeds that both have. Intervals are"
    " Student's t, nominally 95 %; they know no bounds, and an end beyond what a metric can be says nothing. Those of"
    " differences hold for all pairs of levels of a factor together (Bonferroni), and of confirmed levels over all"
    " looks at the data together. A run that was stopped early or diverged is compared with nothing, and its setting"
    " cannot be chosen."
)
EXPLORED = (
    "Each level of a scientific factor, such as the point count, is read at its own other settings of the best mean"
    " over exploration seeds. Settings are chosen and measured on the same seeds and validation images, so the values"
    " read somewhat too well; fresh seeds would tell by how much. In simulated studies of two counts, with equal"
    " noise, 3 to 8 seeds and up to six settings tied at a count, nominal 95 % intervals of the difference miss in 1"
    " to 9 % of studies (5 % nominal): least where both counts have ties, most where one has a clear winner and the"
    " other six ties. In that worst case a count that truly lies one margin behind is wrongly called enough in at most"
    " 9 %. Beyond that it gets worse: 13 % where the tied settings also have all the noise, some 18 % with 20 ties and"
    " 26 % with 50. So with more than six settings tried at a level, what is said of scientific factors is provisional."
    " So it stands until confirmation seeds exist."
)
CONFIRMED = (
    "Each level of a scientific factor, such as the point count, had its other settings chosen by exploration, by"
    " their mean on the validation split, and was run again with them on fresh seeds. These runs alone read the test"
    " split, once, after their last epoch, and they alone carry what is said of scientific factors, floors and the"
    " recommended configuration. No setting was chosen on them: in simulated studies intervals of differences then"
    " miss in the 5 % that they claim, also where without confirmation some 26 % do. The other factors are compared"
    " in exploration, on the validation split."
)
ONE_VALUE = (
    "The interval of a single mean, such as that of the recommended configuration, in the headline and against floors,"
    " is for that mean alone. It makes no allowance for the recommended level being chosen on the same readings: in"
    " simulated studies of 2 to 6 equal levels in which seeds shift all levels by half of what a run varies by, 6 to"
    " 10 % of these intervals miss, not 5 %; where seeds shift levels by much more than that, some 5 % do."
)
LOOKS = (
    "Seeds differ between levels, or are more than were planned. Where they are added until a level is no longer"
    " undecided, every look can be wrong anew. So the 5 % that all verdicts together may be wrong are spent over"
    " looks: 4 % at the first, .5, .25, .125 % and so on at those that follow, by each pair of levels for itself;"
    " intervals are wider accordingly."
)


def method_text(runs: StudyRuns, findings: Findings) -> str:
    """How values, intervals and verdicts came about."""
    parts = [PAIRED, ONE_VALUE, CONFIRMED if findings.is_confirmed else EXPLORED]
    return " ".join([*parts, LOOKS] if has_other_seeds(runs, findings) else parts)


def has_other_seeds(runs: StudyRuns, findings: Findings) -> bool:
    """Whether seeds were added at some level after others were done, as far as the runs show it."""
    planned = runs.search.confirm_seeds if findings.is_confirmed else []
    added = planned and any(seed not in planned for seed in findings.seeds)
    return bool(added) or any(arm.seeds != findings.arms[0].seeds for arm in findings.arms)


def data_rows(runs: StudyRuns) -> Rows:
    """The images."""
    data = runs.data
    classes = ", ".join(map(str, data.get("class_names", [])))
    return [
        ("Source", str(data.get("source", "unknown"))),
        ("Images", f"{data.get('num_images', 'unknown')} used of {data.get('num_images_available', 'unknown')}"),
        ("Scenes", str(data.get("num_scenes", "unknown"))),
        ("Image size", f"{data.get('image_size', 'unknown')} pixels a side"),
        ("Classes", classes or "unknown"),
        ("Labels", "points that people made" if data.get("annotations") == "points" else "masks"),
        ("Fingerprint", str(data.get("fingerprint", "unknown"))),
        *(("To be known", str(warning)) for warning in data.get("warnings", [])),
    ]


def split_rows(runs: StudyRuns) -> list[tuple[str, str, str, str]]:
    """(split, number of images, forest share, scenes)."""
    shares = runs.data.get("forest_share", {})
    return [
        (
            name,
            str(split.get("num_images", "unknown")),
            f"{shares[name]:.3f}" if name in shares else "unknown",
            ", ".join(map(str, split.get("scenes", []))),
        )
        for name, split in runs.data.get("splits", {}).items()
    ]


def protocol_rows(runs: StudyRuns, findings: Findings) -> Rows:
    """Objective, seeds, runs, settings."""
    objective = runs.objective
    goal = "larger is better" if objective["mode"] == "max" else "smaller is better"
    varied = {*runs.parameters, "seed", "evaluate_test"}
    training = runs.training.get(findings.recommended.trial_ids[0], {})
    fixed = [f"{words(name)} {level_text(value)}" for name, value in training.items() if name not in varied]
    read = f"{findings.metric} after the last epoch of confirmation runs; settings were chosen by the objective"
    return [
        ("Objective", f"{objective['metric']} at the {objective['at']} epoch; {goal}"),
        *([("Read", read)] if findings.is_confirmed else []),
        ("Margin", f"{number_text(objective['margin'])}: a smaller difference is called negligible"),
        ("Seeds", _seeds_text(findings)),
        ("Runs", _runs_text(runs, findings)),
        ("Settings tried", settings_tried(runs)),
        *_points_rows(runs, findings),
        ("Same in all runs", ", ".join(fixed)),
    ]


def settings_tried(runs: StudyRuns) -> str:
    """How many settings exploration tried at each scientific level, and how many of them did not run to their end."""
    names = [name for name, role in runs.parameters.items() if role == SCIENTIFIC]
    counts: dict[Cell, Counter[str]] = {}
    for cell, state in _explored_cells(runs).items():
        level = tuple(value for name, value in zip(runs.parameters, cell, strict=True) if name in names)
        counts.setdefault(level, Counter())[state] += 1
    ordered = sorted(counts.items(), key=lambda item: [level_order(value) for value in item[0]])
    texts = [f"{settings_text(dict(zip(names, level, strict=True)))}: {_count_text(each)}" for level, each in ordered]
    return "; ".join(texts) or "none: the confirmed settings were given"


def _explored_cells(runs: StudyRuns) -> dict[Cell, str]:
    """Cell -> how it ended; a setting that one seed stopped or saw diverge did not run to its end."""
    cells: dict[Cell, str] = {}
    for table, state in ((runs.trials, ""), (runs.ended_early, "state")):
        for row in _records(table):
            cells[tuple(row[name] for name in runs.parameters)] = str(row.get(state, ""))
    return cells


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of exploration."""
    rows = table[table["phase"] == EXPLORE] if len(table) else table
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _count_text(states: Counter[str]) -> str:
    ended = [f"{states[kind]} {kind}" for kind in (STOPPED, DIVERGED) if states[kind]]
    return f"{states.total()}" + (f", of which {listed(ended)}" if ended else "")


def _seeds_text(findings: Findings) -> str:
    if not findings.is_confirmed:
        return listed(findings.seeds)
    explored = sorted({seed for cell in findings.cells for seed in cell.seeds})
    return f"exploration: {listed(explored) or 'none'}; confirmation: {listed(findings.seeds)}"


def _runs_text(runs: StudyRuns, findings: Findings) -> str:
    """What is there, and the time that it took, of runs that ended early too."""
    texts = []
    for name, cells in (("exploration", findings.cells), ("confirmation", findings.confirmed)):
        if cells:
            texts.append(f"{sum(len(cell.run_ids) for cell in cells)} of {len(cells)} cells in {name}")
    tables = [table for table in (runs.trials, runs.ended_early) if len(table)]
    minutes = sum(float(table["time_s"].sum()) for table in tables) / 60
    return f"{listed(texts)}; {minutes:.1f} minutes of training in all"


def _points_rows(runs: StudyRuns, findings: Findings) -> Rows:
    """What the annotations really held, for each scientific level, as a mean over its runs."""
    names = ["points/per_image", "points/fewest", "points/forest_share", "points/images_of_one_class"]
    texts = []
    for arm in findings.arms:
        rows = runs.curves(names, set(arm.run_ids))
        if not set(names) <= set(rows):
            return []
        means = rows[names].mean()
        texts.append(
            f"{settings_text(arm.scientific)}: {_mean_count(means['points/per_image'])} an image"
            f" (fewest {_mean_count(means['points/fewest'])}), {percent(means['points/forest_share'], 1)} forest,"
            f" {_mean_count(means['points/images_of_one_class'])} images with one class alone"
        )
    return [("Labels obtained", "; ".join(texts))]


def _mean_count(mean: float) -> str:
    """To one decimal, as people count: 36.3, and 50 where no seed differs."""
    return f"{mean:,.1f}".removesuffix(".0")
