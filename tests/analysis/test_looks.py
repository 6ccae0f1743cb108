import numpy as np
import pytest

from analysis.family import pair_confidence, paired_family
from analysis.looks import additions_of, num_looks, share_of_error


def test_the_shares_of_all_looks_are_less_than_the_whole():
    assert [share_of_error(look) for look in (1, 2, 3, 4)] == pytest.approx([0.8, 0.1, 0.05, 0.025])
    assert sum(share_of_error(look) for look in range(1, 60)) == pytest.approx(1.0)


def test_a_pair_is_looked_at_again_where_both_levels_got_new_seeds():
    additions = [[3, 4], [5, 6]]
    assert num_looks(np.array([True] * 3 + [False] * 4), additions) == 1
    assert num_looks(np.array([True] * 4 + [False] * 3), additions) == 2  # one seed of an addition is enough
    assert num_looks(np.array([True] * 7), additions) == 3


@pytest.mark.parametrize(
    ("seeds", "planned", "extensions", "columns"),
    [
        ([7, 8, 9], [7, 8, 9], [], []),
        ([7, 8, 9, 10, 11], [7, 8, 9], [[10, 11]], [[3, 4]]),
        ([7, 8, 9, 10, 11], [7, 8, 9], [[10], [11], [12]], [[3], [4]]),  # no run of seed 12 is there
        ([7, 8, 9, 10, 11], [7, 8, 9], [], [[3], [4]]),  # nothing says that they came together
        ([7, 8, 9], [], [], []),  # nothing says what was planned
    ],
)
def test_additions_are_what_came_after_the_planned_seeds(seeds, planned, extensions, columns):
    assert additions_of(seeds, planned, extensions) == columns


def test_each_pair_spends_its_error_by_its_own_looks():
    table = np.random.default_rng(0).normal(0.7, 0.01, (3, 5))
    table[0, 3:] = np.nan  # settled, so that it got no further seeds
    family = paired_family(table, additions=[[3, 4]])
    assert family[0, 1].confidence == pytest.approx(1 - 0.05 / 3 * 0.8)
    assert family[1, 2].confidence == pytest.approx(1 - 0.05 / 3 * 0.1)
    assert family[1, 2].confidence == pair_confidence(3, look=2)
    assert paired_family(table)[1, 2].confidence == pair_confidence(3) == pytest.approx(1 - 0.05 / 3)


def test_what_is_not_extended_stays_as_it_was():
    table = np.random.default_rng(0).normal(0.7, 0.01, (3, 5))
    first = paired_family(table[:, :3], additions=[])
    table[0, 3:] = np.nan
    again = paired_family(table, additions=[[3, 4]])
    assert again[0, 1] == first[0, 1]
    assert again[1, 2].num_seeds == 5
