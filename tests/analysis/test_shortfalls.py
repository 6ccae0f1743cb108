from analysis.find import find
from analysis.reading.study_terms import SearchTerms


def texts(findings, kind):
    return [caveat.text for caveat in findings.caveats if caveat.kind == kind]


def test_runs_are_left_out_by_kind_as_if_nothing_were_wrong(make_study):
    excluded = [
        *(
            (f"demo-{i}", "stopped early at epoch 1 of 9 by the scheduler: never compared with finished runs")
            for i in "ab"
        ),
        ("demo-c", "diverged: loss is nan"),
        ("demo-d", "no W&B run"),
        ("demo-e", "1 of 2 epochs"),
    ]
    assert texts(find(make_study(excluded=excluded)), "excluded_runs") == [
        "Left out: 2 stopped early, 1 diverged and 2 incomplete runs; the report gives each reason."
    ]
    assert texts(find(make_study(excluded=excluded[:1])), "excluded_runs") == [
        "Left out: 1 stopped early run; the report gives each reason."
    ]


def test_levels_without_a_result_are_named_with_the_reason(make_study, cells):
    cells |= {(20, rate, 0.0): [0.1, 0.1, 0.1] for rate in (0.1, 0.2)}
    cells |= {(5, 0.1, 0.0): [0.1, 0.1, 0.1]}
    ended = [((20, rate, 0.0), seed, "diverged") for rate in (0.1, 0.2) for seed in range(3)]
    ended += [((5, 0.1, 0.0), 0, "stopped early")]
    levels = [{"points_per_image": n} for n in (5, 10, 20, 50, 400)]
    findings = find(make_study(cells, ended=ended, search=SearchTerms(levels=levels)))
    assert [arm.scientific["points_per_image"] for arm in findings.arms] == [10, 50]
    assert texts(findings, "no_result") == [
        "No result at points per image 5: no setting ran to its end at every seed.",
        "No result at points per image 20: every setting diverged.",
        "No result at points per image 400: no run is complete.",
    ]
    without_file = find(make_study(cells, ended=ended))  # what the runs tell by themselves
    assert len(texts(without_file, "no_result")) == 2


def test_a_level_that_diverged_has_nothing_to_confirm(make_study, cells):
    cells[20, 0.1, 0.0] = [0.1]
    winners = {(10, 0.001, 2.0): [0.5, 0.5, 0.51], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    findings = find(make_study(cells, ended=[((20, 0.1, 0.0), 0, "diverged")], confirm=winners))
    assert findings.phase == "confirm"
    assert texts(findings, "no_result") == ["No result at points per image 20: every setting diverged."]


def test_few_seeds_are_those_of_the_level_that_has_fewest(make_study):
    winners = {(10, 0.001, 2.0): [0.5], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    findings = find(make_study(confirm=winners))
    assert texts(findings, "few_seeds") == ["Few seeds: one seed gives no interval; run at least 3 seeds."]
    assert findings.scientific[0].levels[0].verdict == "undecided"


def test_every_new_caveat_fits_on_a_line_of_the_terminal(make_study, cells):
    excluded = [("a", "stopped early at"), ("b", "diverged"), ("c", "no W&B run")]
    cells[20, 0.1, 0.0] = [0.1]
    terms = SearchTerms(is_grid=False, confirm_seeds=[100, 101])
    ended = [((20, 0.1, 0.0), 0, "diverged"), ((50, 0.01, 2.0), 0, "diverged")]
    winners = {(10, 0.001, 0.0): [0.5], (50, 0.001, 0.0): [0.65, 0.66, 0.67]}
    caveats = find(make_study(cells, ended=ended, confirm=winners, search=terms, excluded=excluded)).caveats
    kinds = {caveat.kind for caveat in caveats}
    assert kinds >= {"other_winner", "confirmation_incomplete", "unequal_seeds", "no_result", "broken_settings"}
    assert max(len(caveat.text) for caveat in caveats) <= 96
