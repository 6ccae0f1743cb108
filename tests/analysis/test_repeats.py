"""Studies without seed blocks: the table that the notebook published, given as its seven runs."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.find import find
from analysis.grid import Grid
from analysis.power import plan_power
from analysis.reading.column_map import REPEATS
from analysis.reading.runs import StudyRuns, load_study
from analysis.reading.source import find_source
from analysis.repeats import repeat_noise
from analysis.spread import find_spread
from analysis.wording import findings_text
from bench.notebook_results import PUBLISHED


def as_study(rows, margin=0.01):
    """A study of these runs; repetitions of a cell are numbered as its seeds."""
    seen: dict[tuple[int, float], int] = {}
    trials = []
    for number, (points, rate, value) in enumerate(rows):
        seed = seen[points, rate] = seen.get((points, rate), -1) + 1
        ids = {"run_id": f"run{number}", "trial_id": f"trial{number}", "seed": seed, "phase": "explore"}
        levels = {"points_per_image": points, "learning_rate": rate}
        trials.append({**ids, **levels, "objective": value, "test": math.nan, "time_s": 3600.0})
    table = pd.DataFrame(trials)
    return StudyRuns(
        study="notebook",
        parameters={"points_per_image": "scientific", "learning_rate": "nuisance"},
        objective={"metric": "val_miou", "mode": "max", "at": "last", "margin": margin},
        data={},
        data_config={},
        epochs=table.drop(columns=["objective", "test"]).assign(epoch=10, val_miou=table["objective"]),
        trials=table,
        training={trial["trial_id"]: {} for trial in trials},
        excluded=[],
    )


@pytest.fixture
def published():
    return find(as_study(PUBLISHED))


def test_the_published_order_is_not_supported_from_the_repeated_cell_alone(published):
    assert published.provisional
    (points,) = published.scientific
    assert (
        "The order of 50, 100 and 200 is not supported: they differ by 0.0141, runs of points per image 100, learning"
        " rate 0.0001 differ by 0.0150, the only noise known of these runs (1 degree of"
        " freedom)." in points.text
    )
    assert {level.level: level.verdict for level in points.levels} == {
        10: "undecided",
        50: "undecided",
        100: "undecided",
        200: "best",
    }
    assert [caveat.kind for caveat in published.caveats].count("single_runs") == 1
    assert published.headline.startswith("Provisional: label 200 points")
    assert "not supported" in findings_text(published)


def test_the_same_from_runs_of_the_notebooks_kind_that_wandb_wrote(published, write_run, tmp_path):
    for number, (points, rate, value) in enumerate(PUBLISHED):
        rows = [{"val_loss": 0.5}]  # the notebook logged no metric by epoch
        config = {"num_points": points, "lr": rate}
        write_run(tmp_path, f"run{number}", rows, config=config, summary={"val_miou": value}, group="notebook")
    columns = ["points=num_points", "learning_rate=lr", "objective=val_miou"]
    findings = find(load_study(find_source(tmp_path, columns=columns)))
    assert [factor.text for factor in findings.factors] == [factor.text for factor in published.factors]
    assert [level.text for level in findings.factors[0].levels] == [level.text for level in published.factors[0].levels]
    assert findings.headline == published.headline
    (power,) = (topic for topic in findings.topics if topic.name == "power")
    assert [claim.values["num_seeds"] for claim in power.claims[:3]] == [43, 6, 24]  # margin, 10 and 50 against 200


def test_its_intervals_are_tukeys_on_one_degree_of_freedom(published):
    # Noise of a run: .0150 / sqrt(2) = .0106066. q(.95; 4 levels, 1) = 32.819 from the table; of two single runs the
    # half width is 32.819 / sqrt(2) * .0106066 * sqrt(2) = .34810; where one level has two runs, times sqrt(3/4).
    fifty, hundred = published.scientific[0].levels[1:3]
    assert fifty.difference.value == pytest.approx(0.5712 - 0.5830)
    assert fifty.difference.high - fifty.difference.value == pytest.approx(0.34810, abs=2e-5)
    assert hundred.difference.value == pytest.approx((0.5689 + 0.5839) / 2 - 0.5830)
    assert hundred.difference.high - hundred.difference.value == pytest.approx(0.34810 * math.sqrt(0.75), abs=2e-5)
    assert fifty.difference.num_seeds == 1
    # The mean of a level alone: t(.975, 1) = 12.706.
    assert fifty.value.high - fifty.value.value == pytest.approx(12.7062 * 0.0106066, abs=1e-5)


def test_it_says_what_it_would_take(published):
    # Two independent runs differ by .0150 in standard deviation; 2 seeds more than z's, as of the t of few seeds.
    # Family of 6 pairs: z(1 - .05 / 12) = 2.638; (2.638 + .842)^2 * (.0150 / .0118)^2 = 19.6, with the t: 24.
    power = plan_power(as_study(PUBLISHED), published)
    assert (power.spread.value, power.spread.degrees_of_freedom) == (pytest.approx(0.0150), 1)
    assert not power.spread.paired
    needed = {target.subject: target.num_seeds for target in power.targets}
    assert needed["50 against 200"] == 24
    # All three others together with 80 %, so each with 93 %: (2.638 + 1.501)^2 * 1.5^2 = 38.5.
    assert needed["margin"] == 43
    assert [topic.name for topic in published.topics].count("power") == 1
    assert published.scientific[0].levels[1].seeds_needed > 500  # .0018 from the margin is a hard question


def test_without_a_repeated_cell_nothing_is_known_of_noise():
    findings = find(as_study(PUBLISHED[:5]))
    points = findings.scientific[0]
    assert all(level.difference is None or level.difference.low is None for level in points.levels)
    assert all(level.seeds_needed is None for level in points.levels)
    assert "supported" not in points.text
    assert [topic for topic in findings.topics if topic.name == "power"] == []
    same = find(as_study([*PUBLISHED[:4], (100, 1e-4, 0.5689)]))  # twice the very same number: no noise, no interval
    assert same.scientific[0].levels[0].difference.low is None


def test_clear_differences_stay_provisional_though_judged():
    # Noise of .0001 between three runs of one cell: 10 points are .1 behind for sure, and yet nothing was paired.
    rows = [(10, 1e-4, 0.50), (50, 1e-4, 0.60), (100, 1e-4, 0.601), (50, 1e-3, 0.4), (50, 1e-3, 0.4001)]
    findings = find(as_study([*rows, (50, 1e-3, 0.4002)]))
    points = findings.scientific[0]
    assert [level.verdict for level in points.levels] == ["not enough", "enough", "best"]
    assert points.provisional
    assert findings.provisional
    assert points.text.endswith("differ by 0.0002, the only noise known of these runs (2 degrees of freedom).")


def test_where_levels_have_seeds_of_their_own_the_repeated_cells_have_no_say(make_study, cells):
    findings = find(make_study(cells))
    assert "only noise known" not in findings_text(findings)
    assert findings.factors[0].levels[0].difference.num_seeds == 3


def test_intervals_on_repeated_cells_cover_what_they_claim():
    # Four equal levels of one run each, and one cell that ran four times: 3 degrees of freedom.
    covered = []
    for values in np.random.default_rng(0).normal(0.6, 0.01, (100, 8)):
        rows = [(count, 1e-4, value) for count, value in zip((10, 50, 100, 200), values[:4], strict=True)]
        rows += [(100, 1e-5, value - 0.5) for value in values[4:]]
        (points,) = find(as_study(rows), with_topics=False).scientific
        differences = [level.difference for level in points.levels if level.difference]
        covered.append(all(difference.low <= 0 <= difference.high for difference in differences))
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 100)
    assert np.mean(covered) < 1.0  # were they endless, the line above would show nothing


def test_cells_that_rise_and_fall_with_a_seed_tell_no_more_than_its_seeds():
    # Two levels without a seed in common, 6 settings each at 3 seeds of their own. A seed shifts its six cells alike by
    # .05, beside .01 of each run: 4 degrees of freedom and not 24, of which an interval covers about half.
    rng, true = np.random.default_rng(1), math.sqrt(2) * math.hypot(0.05, 0.01)
    covered, naive = [], []
    for _ in range(40):
        shifts = rng.normal(0, 0.05, 6)
        rows = [
            (seed, 10 if seed < 3 else 50, setting, 0.6 + shifts[seed] + rng.normal(0, 0.01) - 0.3 * (setting > 0))
            for setting in range(6)
            for seed in range(6)
        ]
        runs = as_study([(points, setting, value) for _, points, setting, value in rows])
        runs.trials["seed"] = [seed for seed, *_ in rows]
        spread = find_spread(runs, find(runs, with_topics=False))
        assert (spread.paired, spread.degrees_of_freedom) == (False, 4)
        covered.append(spread.low <= true <= spread.high)
        ends = [spread.value * math.sqrt(24 / stats.chi2.ppf(share, 24)) for share in (0.975, 0.025)]
        naive.append(ends[0] <= true <= ends[1])
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 40)
    assert np.mean(naive) < 0.75


def test_the_degrees_of_freedom_of_repeated_cells_by_hand():
    # Cells a and b share seeds 0 to 2, c has 0 and 1 (told by the former already), d 3 and 4, e one run alone.
    nan = math.nan
    values = np.array(
        [
            [1, 2, 4, nan, nan],
            [2, 3, 4, nan, nan],
            [7, 9, nan, nan, nan],
            [nan, nan, nan, 5, 6],
            [3, nan, nan, nan, nan],
        ]
    )
    ids = [["-"] * 5] * 5
    grid = Grid(["setting"], [(name,) for name in "abcde"], [0, 1, 2, 3, 4], values, ids, ids)
    blocks, single = repeat_noise(grid), repeat_noise(grid, are_blocks=False)
    assert (blocks.degrees_of_freedom, single.degrees_of_freedom) == (3, 6)
    assert single.spread**2 == pytest.approx((14 / 3 + 2 + 2 + 0.5) / 6)
    assert blocks.spread**2 == pytest.approx((14 / 3 + 2 + 0.5) / 5)  # without c


def test_where_seeds_only_number_repetitions_each_run_counts():
    rows = [(count, 1e-4, 0.6 + count / 1e4) for count in (10, 50, 100, 200)]
    rows += [(50, rate, 0.5 + shift) for rate in (1e-3, 1e-5, 1e-2) for shift in (0.0, 0.01, 0.03)]
    runs = as_study(rows)
    assert "(2 degrees of freedom)" in find(runs).scientific[0].text
    runs.notes.append(REPEATS)
    assert "(6 degrees of freedom)" in find(runs).scientific[0].text
