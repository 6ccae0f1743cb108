from dataclasses import replace

from analysis.find import find
from analysis.reading.study_terms import SearchTerms
from analysis.report.protocol import method_text, protocol_rows, settings_tried

WINNERS = {(10, 0.001, 2.0): [0.50, 0.52, 0.51], (50, 0.001, 0.0): [0.60, 0.62, 0.64]}


def rows(runs):
    return dict(protocol_rows(runs, find(runs)))


def test_settings_are_counted_at_each_level_and_those_that_ended_early_named(make_study, cells):
    cells |= {(20, 0.1, gamma): [0.1, 0.1] for gamma in (0.0, 2.0)}
    ended = [
        ((50, 0.01, 2.0), 1, "stopped early"),  # one seed is enough
        ((50, 0.01, 0.0), 0, "stopped early"),
        ((20, 0.1, 0.0), 0, "diverged"),
        ((20, 0.1, 2.0), 0, "diverged"),
        ((20, 0.1, 2.0), 1, "diverged"),
    ]
    assert settings_tried(make_study(cells, ended=ended)) == (
        "points per image 10: 4; points per image 20: 2, of which 2 diverged; points per image 50: 4, of which 2"
        " stopped early"
    )
    roles = dict.fromkeys(("points_per_image", "learning_rate", "focal_gamma"), "nuisance")
    assert settings_tried(make_study(roles=roles)) == "the study: 8"


def test_the_time_of_runs_that_ended_early_counts(make_study):
    # 24 runs of 5 s; one that was stopped took 1 s in place of 5: 116 s are 1.9 minutes.
    assert rows(make_study(ended=[((50, 0.01, 2.0), 1, "stopped early")]))["Runs"] == (
        "23 of 8 cells in exploration; 1.9 minutes of training in all"
    )


def test_the_protocol_says_what_confirmation_read(make_study):
    explored, confirmed = rows(make_study()), rows(make_study(confirm=WINNERS))
    assert "Read" not in explored
    assert confirmed["Read"].startswith("test/miou after the last epoch of confirmation runs")
    assert explored["Seeds"] == "0, 1 and 2"
    assert confirmed["Seeds"] == "exploration: 0, 1 and 2; confirmation: 100, 101 and 102"
    assert confirmed["Runs"].startswith("24 of 8 cells in exploration and 6 of 2 cells in confirmation; ")
    assert "evaluate test" not in confirmed["Same in all runs"]


def test_the_method_is_the_one_that_was_used(make_study):
    def method(runs):
        return method_text(runs, find(runs))

    planned, some = SearchTerms(confirm_seeds=[100, 101, 102]), SearchTerms(confirm_seeds=[100, 101])
    assert "until confirmation seeds exist." in method(make_study())
    assert "every look" not in method(make_study())
    confirmed = method(make_study(confirm=WINNERS, search=planned))
    assert "No setting was chosen on them" in confirmed
    assert "until confirmation seeds exist" not in confirmed
    assert "every look" not in confirmed
    assert "every look" in method(make_study(confirm=WINNERS, search=some))  # seed 102 was added to every level
    more = {**WINNERS, (50, 0.001, 0.0): [0.60, 0.62, 0.64, 0.63]}
    assert "every look" in method(make_study(confirm=more))


def test_numbers_are_shown_as_exactly_as_they_are_known(make_study):
    """Means of 36, 36 and 37 images over three seeds are 36.3, and a margin of .0001 is not 0."""
    runs = make_study(objective={"metric": "val/miou", "mode": "max", "at": "last", "margin": 0.0001})
    counts = runs.epochs["seed"].map({0: 36, 1: 36, 2: 37})
    columns = {"points/per_image": 10.0, "points/fewest": 8.0, "points/forest_share": 0.0312}
    epochs = runs.epochs.assign(**columns, **{"points/images_of_one_class": counts})
    found = rows(replace(runs, epochs=epochs))
    assert found["Margin"].startswith("0.00010: ")
    assert found["Labels obtained"].startswith(
        "points per image 10: 10 an image (fewest 8), 3.1 % forest, 36.3 images with one class alone; "
    )


def test_an_interval_that_leaves_the_scale_is_remarked(make_study):
    assert "an end beyond what a metric can be says nothing" in method_text(make_study(), find(make_study()))
