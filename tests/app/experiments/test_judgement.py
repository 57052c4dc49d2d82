"""Strengths and agreement against published figures and slow oracles."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize, stats

from app.experiments.judgement import (
    BOTH,
    FIRST,
    NEITHER,
    SECOND,
    Vote,
    agreement,
    alpha,
    bradley_terry,
    strengths_by_arm,
    strengths_of,
)


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    """Four observers, twelve units, nominal: Krippendorff 2011, page 5: .743."""
    _ = None
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
    units = [[value for value in unit if value is not None] for unit in zip(*observers, strict=True)]
    assert alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_at_its_ends() -> None:
    assert alpha([["a", "a"], ["b", "b"]]) == 1.0
    assert alpha([["a", "b"], ["b", "a"]]) == pytest.approx(-0.5)
    assert alpha([["a"], ["b"]]) is None
    assert alpha([["a", "a"], ["a", "a"]]) is None
    assert alpha([]) is None


def test_agreement_is_on_the_arm_and_not_on_the_item() -> None:
    votes = [Vote(0, 0, 1, FIRST), Vote(0, 0, 1, FIRST), Vote(0, 0, 2, SECOND), Vote(0, 0, 2, SECOND)]
    assert agreement(votes) == 1.0


def test_two_arms_are_as_strong_as_they_were_preferred() -> None:
    votes = [Vote(i, 0, 1, SECOND if i < 30 else FIRST) for i in range(40)]
    baseline, treatment = strengths_of(votes, 2)
    assert treatment.value == pytest.approx(30.5 / 41)  # and half a win to begin with
    assert baseline.value + treatment.value == pytest.approx(1)
    assert [treatment.low, treatment.high] == pytest.approx(stats.beta.ppf([0.025, 0.975], 30.5, 10.5), abs=0.02)


def test_both_and_neither_are_half_a_win_for_each() -> None:
    votes = [Vote(i, 0, 1, choice) for i, choice in enumerate([BOTH, NEITHER] * 10)]
    assert [one.value for one in strengths_of(votes, 2)] == pytest.approx([0.5, 0.5])


def test_several_ballots_of_one_item_are_one_item() -> None:
    votes = [Vote(i, 0, 1, SECOND if i < 6 else FIRST) for i in range(8)]
    alone, often = strengths_of(votes, 2)[1], strengths_of(votes * 5, 2)[1]
    assert often.high - often.low > 0.8 * (alone.high - alone.low)


def test_three_arms_are_those_of_the_greatest_likelihood() -> None:
    wins = np.array([[0.0, 7, 3], [5, 0, 9], [8, 4, 0]])
    begun, pairs = wins + 0.5 * (1 - np.eye(3)), list(itertools.permutations(range(3), 2))

    def surprise(logs: npt.NDArray[np.float64]) -> float:
        strength = np.exp(np.append(logs, 0.0))
        chances = [begun[i, j] * np.log(strength[i] / (strength[i] + strength[j])) for i, j in pairs]
        return -float(np.sum(chances))

    best = np.exp(np.append(optimize.minimize(surprise, np.zeros(2)).x, 0.0))
    np.testing.assert_allclose(bradley_terry(wins), best / best.sum(), rtol=1e-4)


def test_an_arm_that_always_loses_has_a_strength_still() -> None:
    weak, strong = strengths_of([Vote(i, 0, 1, SECOND) for i in range(10)], 2)
    assert 0 < weak.value < 0.1 < 0.9 < strong.value < 1
    assert strong.low == pytest.approx(stats.beta.ppf(0.025, 10.5, 0.5), abs=0.02)


def test_an_arm_that_nobody_judged_has_no_strength() -> None:
    votes = [Vote(i, 0, 2, SECOND if i < 30 else FIRST) for i in range(40)]
    found = strengths_by_arm(votes)
    assert list(found) == [0, 2]
    assert found[2] == strengths_of([Vote(one.item, 0, 1, one.preferred) for one in votes], 2)[1]


def test_arms_that_no_ballot_links_are_not_compared() -> None:
    votes = [Vote(0, 0, 1, FIRST), Vote(1, 2, 3, FIRST), Vote(2, 3, 4, SECOND)]
    assert list(strengths_by_arm(votes)) == [2, 3, 4]
    assert list(strengths_by_arm([*votes, Vote(3, 1, 3, BOTH)])) == [0, 1, 2, 3, 4]
