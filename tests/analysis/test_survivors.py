"""Levels that lost runs are not judged as well as what is left of them reads."""

import pytest

from analysis.find import find

TEN, FIFTY, HUNDRED = (10, 0.001, 0.0), (50, 0.001, 0.0), (100, 0.001, 0.0)
CONFIRMED = {
    TEN: [0.700, 0.710, 0.720, 0.730, 0.740],
    FIFTY: [0.701, 0.709, 0.722, 0.729, 0.741],
    HUNDRED: [0.699, 0.710, 0.721, 0.730, 0.739],
}


def texts(findings, kind):
    return [caveat.text for caveat in findings.caveats if caveat.kind == kind]


def factor(findings, name):
    return next(factor for factor in findings.factors if factor.name == name)


def verdicts(findings, name="points_per_image"):
    return {level.level: level.verdict for level in factor(findings, name).levels}


@pytest.fixture
def confirmed(make_study):
    """A function that finds what three equal counts show of which the given runs of confirmation diverged."""

    def make(ended=(), confirm=CONFIRMED):
        explored = {cell: values[:3] for cell, values in CONFIRMED.items()}
        return find(make_study(explored, confirm=confirm, ended=[(*each, "diverged") for each in ended]))

    return make


def test_a_count_whose_confirmation_diverged_is_not_enough_for_anything(confirmed):
    whole = confirmed()
    assert verdicts(whole) == {10: "enough", 50: "best", 100: "enough"}
    assert (whole.provisional, whole.recommended.scientific["points_per_image"]) == (False, 10)
    lost = confirmed([(TEN, 103), (TEN, 104)])
    ten = factor(lost, "points_per_image").levels[0]
    assert (ten.verdict, ten.withheld, ten.seeds_needed) == ("undecided", "2 confirmation runs diverged", None)
    assert ten.text.endswith("; 2 confirmation runs diverged, so that its mean reads too well")
    assert lost.recommended.scientific["points_per_image"] == 50
    assert lost.provisional
    assert lost.headline.startswith("Provisional: label 50 points")
    assert texts(lost, "diverged_in_confirmation") == [
        "Diverged in confirmation: points per image 10 at seed 103 and 104; the other seeds read too well, and no level"
        " is called enough on them."
    ]


def test_survivors_do_not_lead_and_the_others_are_held_against_each_other(confirmed):
    lost = confirmed([(FIFTY, 104)])
    assert verdicts(lost) == {10: "best", 50: "undecided", 100: "enough"}
    assert factor(lost, "points_per_image").text.endswith("10 leads those that lost no run; undecided: 50.")


def test_survivors_that_are_worse_even_so_are_not_enough(confirmed):
    worse = CONFIRMED | {TEN: [value - 0.2 for value in CONFIRMED[TEN]]}
    assert verdicts(confirmed([(TEN, 104)], worse))[10] == "not enough"


def test_where_every_level_lost_runs_nothing_is_settled(confirmed):
    worse = CONFIRMED | {TEN: [value - 0.2 for value in CONFIRMED[TEN]]}
    lost = confirmed([(cell, 104) for cell in CONFIRMED], worse)
    assert verdicts(lost) == {10: "undecided", 50: "best", 100: "undecided"}
    assert factor(lost, "points_per_image").provisional
    assert lost.provisional


def test_a_level_of_which_every_confirmation_run_diverged_is_read_in_exploration_and_undecided(confirmed):
    lost = confirmed([(TEN, seed) for seed in range(100, 105)])
    assert lost.phase == "explore"
    assert verdicts(lost)[10] == "undecided"
    assert lost.provisional
    assert texts(lost, "diverged_in_confirmation")


RATES = {
    (count, rate, 0.0): [0.70 + 0.001 * rate, 0.71, 0.72 + 0.002 * rate] for count in (10, 50, 100) for rate in (1, 2)
}


@pytest.fixture
def two_rates(make_study):
    """A function that finds what two learning rates show at three counts, of which the given cells diverged."""
    return lambda ended=(): find(
        make_study(RATES, ended=[(cell, seed, "diverged") for cell in ended for seed in (0, 1, 2)])
    )


def test_a_rate_that_diverges_at_most_counts_is_not_the_best(two_rates):
    assert verdicts(two_rates(), "learning_rate") == {1: "as good", 2: "best"}
    found = factor(two_rates([(10, 2, 0.0), (50, 2, 0.0)]), "learning_rate")
    assert {level.level: level.verdict for level in found.levels} == {1: "best", 2: "undecided"}
    assert found.levels[1].withheld == "2 of its 3 settings diverged"
    assert "mean over 1 of 3 other settings): 1 leads those that lost no run" in found.text


def test_what_diverges_at_every_rate_is_held_against_none(two_rates):
    found = factor(two_rates([(10, 1, 0.0), (10, 2, 0.0)]), "learning_rate")
    assert [level.verdict for level in found.levels] == ["as good", "best"]
    assert [level.withheld for level in found.levels] == ["", ""]
    assert "mean over 2 of 3 other settings" in found.text
