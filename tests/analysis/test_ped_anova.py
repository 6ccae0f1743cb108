"""PED-ANOVA of many outcomes at once against Optuna's own evaluator, and the level of its permutation null."""

import numpy as np
import pytest

from analysis.ped_anova import Axis, better_share, importances, judge, level_axis, optuna_importances, range_axis


def made_axes(stream: np.random.Generator, num_settings: int) -> list[Axis]:
    """Ranges on both scales, one of few values, and levels of which one may not occur."""
    return [
        range_axis(10 ** stream.uniform(-5, -1, num_settings), 1e-5, 1e-1, is_log=True),
        range_axis(stream.uniform(0, 0.5, num_settings), 0, 0.5, is_log=False),
        range_axis(stream.integers(2, 9, num_settings).astype(float), 2, 64, is_log=True),
        level_axis(stream.integers(0, 2, num_settings).tolist()),
        level_axis([5, *stream.integers(0, 4, num_settings - 1).tolist()]),
    ]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("num_settings", [16, 17, 60, 300])
def test_all_outcomes_at_once_are_what_optuna_says_of_each(share: float, num_settings: int) -> None:
    stream = np.random.default_rng(num_settings)
    axes = made_axes(stream, num_settings)
    losses = stream.normal(size=(6, num_settings))
    losses[1] += axes[0].places / 5  # a real effect
    losses[2] = np.round(losses[2])  # equals, also at the edge of the better ones
    losses[3] = axes[1].values  # the better ones lie in one corner
    losses[4] = stream.integers(0, 4, num_settings)  # few outcomes alone
    expected = [optuna_importances(axes, row, share) for row in losses]
    np.testing.assert_allclose(importances(axes, losses, share), expected, rtol=1e-9, atol=1e-12)


def test_only_the_order_counts() -> None:
    stream = np.random.default_rng(0)
    axes, losses = made_axes(stream, 40), stream.normal(size=(1, 40))
    np.testing.assert_array_equal(importances(axes, losses), importances(axes, np.exp(losses)))
    np.testing.assert_array_equal(importances(axes, losses), importances(axes, losses.argsort().argsort()))


def test_levels_worked_by_hand() -> None:
    # Eight settings at two levels; the better half are all at level 0. Among them, Optuna has one kernel for the level
    # that occurs and one as a prior, each 1/2 everywhere and 1 more where it is: (3/4, 1/4) and (1/2, 1/2), weighted
    # 4 to 1: (.7, .3). Among all, three kernels: (.8, .2), (.2, .8), (.5, .5), weighted 4, 4 and 1: (.5, .5).
    # .5 (.7/.5 - 1)^2 + .5 (.3/.5 - 1)^2 = .16, times (4/8)^2.
    axis = level_axis([0, 0, 0, 0, 1, 1, 1, 1])
    found = importances([axis], np.arange(8.0)[None])
    assert found[0, 0] == pytest.approx(0.16 / 4)


def test_a_value_belongs_to_the_nearest_step_of_its_range() -> None:
    assert range_axis([0.0, 0.4, 0.6, 48.9, 49.0], 0, 49, is_log=False).places.tolist() == [0, 0, 1, 49, 49]
    assert range_axis([1e-5, 1e-3, 1e-1], 1e-5, 1e-1, is_log=True).places.tolist() == [0, 24, 49]  # 24.5 goes down


def test_of_settings_that_diverged_none_is_among_the_better() -> None:
    assert better_share(40, 40) == 0.5
    share = better_share(40, 7)
    ranks = np.r_[np.arange(7.0), np.full(33, 7.0)]
    axis = level_axis([0] * 7 + [1] * 33)
    # As if there were seven better ones of forty: the share of all is (7/40)^2.
    among = importances([axis], ranks[None], share)[0, 0]
    assert among == pytest.approx(optuna_importances([axis], ranks, 7 / 40 - 1e-9)[0])
    assert among > 0


def test_chance_is_judged_by_the_largest_of_all_worked_by_hand() -> None:
    # 19 permutations and the outcome itself are 20: at 5 %, the outcome alone may be the largest.
    null = np.stack([np.arange(19.0), 100 * np.arange(19.0)[::-1]], axis=1)
    needed, p_values = judge(np.array([40.0, 900.0]), null)
    assert p_values[0] == pytest.approx(1 / 20)
    assert p_values[1] > 0.5  # the middle of what chance does
    assert needed[0] < 40
    assert needed[1] == pytest.approx(1800)  # the largest of its own


def test_a_verdict_and_its_p_value_agree() -> None:
    for seed in range(200):
        stream = np.random.default_rng(seed)
        observed, null = stream.normal(1.5, 1, 4), stream.normal(0, [1, 2, 0.1, 5], (199, 4))
        needed, p_values = judge(observed, null)
        assert ((observed > needed) == (p_values <= 0.05)).all()


def test_parameters_of_unlike_scales_are_called_real_alike_rarely() -> None:
    """Of 2,000 studies without any effect 5 % call something real (standard error .5 %), each parameter alike often."""
    stream = np.random.default_rng(0)
    calls = np.zeros(3)
    num_any = 0
    for _ in range(2000):
        values = stream.exponential([1, 10, 0.01], (200, 3))
        needed, _ = judge(values[0], values[1:])
        calls += values[0] > needed
        num_any += (values[0] > needed).any()
    assert 0.035 < num_any / 2000 < 0.065
    assert calls.max() < 2.5 * calls.min()
