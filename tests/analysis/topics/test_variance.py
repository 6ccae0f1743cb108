from dataclasses import replace

import numpy as np
import pytest

from analysis.find import find
from analysis.topics.variance import find_variance, mean_squares

ROLES = {"points_per_image": "scientific", "points_seed": "scientific"}


def crossed(rng, points, weights, rest, num_draws=4, num_seeds=4, counts=(10,)):
    """Readings of every draw at every seed, with these true standard deviations."""
    rows, columns = points * rng.normal(size=num_draws), weights * rng.normal(size=num_seeds)
    return {
        (n, draw): list(0.5 + n / 100 + rows[draw] + columns + rest * rng.normal(size=num_seeds))
        for n in counts
        for draw in range(num_draws)
    }


def topic(runs):
    return find_variance(runs, find(runs))


def test_mean_squares_are_those_of_the_analysis_of_variance():
    # Rows -1, 1; columns 0, 2 (mean 1 added); one odd reading of 4.
    table = np.array([[[-1.0, 1.0], [1.0, 7.0]]])
    rows, columns, rest = mean_squares(table)
    # Row means 0, 4; column means 0, 4; mean 2; rest +1 or -1 in each of the four.
    assert (rows.value, columns.value, rest.value) == (16.0, 16.0, 4.0)
    assert (rows.dof, columns.dof, rest.dof) == (1, 1, 1)
    assert [each.value for each in mean_squares(np.concatenate([table, 0 * table]))] == [8.0, 8.0, 2.0]


def test_points_and_weights_come_apart_where_their_seeds_are_crossed(make_runs):
    found = topic(make_runs(ROLES, crossed(np.random.default_rng(1), 0.05, 0.01, 0.002, 8, 8, counts=(10, 50))))
    points, weights, rest = found.claims
    assert [claim.subject for claim in found.claims] == ["points", "weights and order", "interaction and chance"]
    assert points.estimate.confidence == pytest.approx(1 - 0.05 / 3)
    assert points.estimate.low <= 0.05 <= points.estimate.high
    assert points.verdict == "largest"
    assert sum(claim.values["share"] for claim in found.claims) == pytest.approx(1)
    assert points.values["share"] > 0.8 > 0.2 > weights.values["share"] > rest.values["share"]
    assert found.text.startswith("Of the variance of one reading: points ")
    assert len(points.run_ids) == 128
    assert "vary points_seed" not in found.text


def test_the_three_parts_cover_their_true_values_together(make_runs):
    rng = np.random.default_rng(1)
    truth = (0.02, 0.01, 0.01)
    runs = make_runs(ROLES, crossed(rng, *truth, counts=(10, 50)))
    findings = find(runs)
    hits, num = 0, 1000
    for _ in range(num):
        readings = crossed(rng, *truth, counts=(10, 50))
        cells = [replace(cell, readings=readings[tuple(cell.parameters.values())]) for cell in findings.cells]
        claims = find_variance(runs, replace(findings, cells=cells)).claims
        hits += all(c.estimate.low <= each <= c.estimate.high for c, each in zip(claims, truth, strict=True))
    assert 0.93 <= hits / num <= 0.99  # two counts in step count as one, and Bonferroni takes parts for the worst


def test_a_crossing_with_holes_is_none(make_runs):
    cells = crossed(np.random.default_rng(0), 0.05, 0.01, 0.002)
    cells[10, 2] = [*cells[10, 2][:3], None]
    assert topic(make_runs(ROLES, cells)) is None


def test_without_a_crossing_and_without_scenes_there_is_nothing_to_tell_apart(make_runs):
    assert topic(make_runs({"points_per_image": "scientific"}, {(10,): [0.5, 0.6], (50,): [0.7, 0.8]})) is None


def draw(rng, scenes_apart, seeds_apart, num_scenes=20, num_seeds=3):
    """(num_seeds, num_scenes, 2, 2) equal scenes, both classes alike: the standard deviations are those of accuracy."""
    right = 0.8 + rng.normal(0, scenes_apart, num_scenes) + rng.normal(0, seeds_apart, (num_seeds, 1))
    return np.round(1e6 * np.moveaxis(np.array([[right, 1 - right], [1 - right, right]]), (0, 1), (2, 3)))


def test_seeds_are_held_against_scenes_and_the_text_says_what_would_split_them(make_scenes):
    rng = np.random.default_rng(0)
    found = topic(make_scenes({10: draw(rng, 0.1, 0.001), 50: draw(rng, 0.1, 0.001)}))
    seeds, scenes = found.claims
    assert [seeds.subject, scenes.subject] == ["seeds: points and weights together", "scenes"]
    assert scenes.values["share"] > 0.9
    assert (seeds.values["levels"], scenes.values["levels"]) == ("3 seeds", "20 scenes")
    # mIoU of .8 right is .8 / 1.2: its slope is 2 / 1.2 squared. Twenty scenes of .1 each.
    assert scenes.estimate.low <= 0.1 / 20**0.5 * 2 / 1.44 <= scenes.estimate.high
    assert found.text.endswith("To tell points from weights, vary points_seed beside the seeds.")


def test_too_few_scenes_are_no_part(make_scenes):
    rng = np.random.default_rng(0)
    assert topic(make_scenes({10: draw(rng, 0.1, 0.01, 5), 50: draw(rng, 0.1, 0.01, 5)})) is None
