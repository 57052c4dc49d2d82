"""Ranks among clean rows: what they promise, against brute force and many draws."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from client.conformal import Calibration, discoveries

SIGNALS = ("a", "b", "c")


def clean(rows: int, seed: int = 0, spread: float = 0.8) -> npt.NDArray[np.float32]:
    """Dependent signals: a part of each is shared."""
    drawn = np.random.default_rng(seed)
    shared = drawn.normal(size=(rows, 1))
    found: npt.NDArray[np.float32] = (spread * shared + drawn.normal(size=(rows, 3)) + [0.0, 5.0, -3.0]).astype(
        np.float32
    )
    return found


def calibration(rows: int = 200, seed: int = 0) -> Calibration:
    return Calibration(SIGNALS, clean(rows, seed))


def test_a_signal_s_p_value_is_its_rank() -> None:
    made, new = calibration(50), clean(20, 1)
    for i in range(20):
        for column in range(3):
            rank = sum(float(one) >= float(new[i, column]) for one in made.raw[:, column])
            assert made.signal_p_values(new)[i, column] == pytest.approx((1 + rank) / 51)


@pytest.mark.parametrize("combine", ["fisher", "max"])
def test_the_combined_p_value_is_the_rank_of_the_combined_score(combine: str) -> None:
    made = Calibration(SIGNALS, clean(60), "fisher" if combine == "fisher" else "max")
    new = clean(30, 2)

    def score(p_values: npt.NDArray[np.float64]) -> float:
        surprises = [-2 * math.log(p) for p in p_values]
        return sum(surprises) if combine == "fisher" else max(surprises)

    own = []
    for i in range(60):
        ranks = [(made.raw[:, column] >= made.raw[i, column]).sum() / 61 for column in range(3)]
        own.append(score(np.array(ranks)))
    for i, p_value in enumerate(made.p_values(new)):
        mine = score(made.signal_p_values(new)[i])
        assert p_value == pytest.approx((1 + sum(one >= mine - 1e-9 for one in own)) / 61)


def test_the_calibration_rows_themselves_have_uniform_p_values() -> None:
    made = calibration(400)
    p_values = np.sort(made.p_values(made.raw))
    assert np.abs(p_values - np.arange(1, 401) / 401).max() < 0.02


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
def test_no_more_honest_inputs_are_flagged_than_the_rate_says(rate: float) -> None:
    flagged = [(calibration(199, seed).p_values(clean(50, 10_000 + seed)) <= rate).mean() for seed in range(300)]
    error = np.std(flagged) / math.sqrt(len(flagged))
    assert np.mean(flagged) <= rate + 3 * error
    assert np.mean(flagged) >= 0.7 * rate


def test_the_chi_square_table_would_flag_too_many() -> None:
    """The reason why the sum is ranked again: dependent signals make large sums more frequent than the table says."""
    made = calibration(2000)
    beyond_the_table = 12.5916  # the 95 % point of chi-square with 6 degrees of freedom
    assert (made.scores(clean(4000, 5)) > beyond_the_table).mean() > 0.06


def test_flagged_is_above_the_threshold() -> None:
    for rows in (20, 99, 100, 399, 400):
        made = calibration(rows)
        new = clean(300, 3)
        for rate in (0.05, 0.1, 0.07, 0.2):
            flagged = made.p_values(new) <= rate
            assert (flagged == (made.scores(new) > made.threshold(rate))).all()


def test_a_rate_below_the_smallest_flags_nothing() -> None:
    made = calibration(50)
    assert made.threshold(1 / 52) == math.inf
    assert made.threshold(1 / 51) < math.inf


def test_equal_scores_are_equally_suspicious() -> None:
    made = Calibration(("a",), np.zeros((30, 1), dtype=np.float32))
    assert made.p_values(np.zeros((2, 1))).tolist() == [1.0, 1.0]
    assert made.p_values(np.ones((1, 1))).tolist() == [1 / 31]


def test_some_of_the_signals_are_calibrated_by_themselves() -> None:
    made = calibration(100)
    alone = made.of(["b"])
    assert alone.signals == ("b",)
    assert (alone.signal_p_values(made.raw[:, 1:2]) == made.signal_p_values(made.raw)[:, 1:2]).all()


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    p_values = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    assert discoveries(p_values, 0.05).tolist() == [True, True, True, True, False]
    assert discoveries(np.array([0.04, 0.04, 0.9]), 0.05).tolist() == [False, False, False]
    assert discoveries(np.zeros(0), 0.05).tolist() == []


def test_a_shift_is_told_and_luck_is_not() -> None:
    made = calibration(400)
    assert made.shifted(200, 1000, 0.05)
    assert not made.shifted(60, 1000, 0.05)
    assert not made.shifted(0, 0, 0.05)
    assert not made.shifted(1, 1, 0.05)
    # A binomial test alone would take a threshold that came out low for a shift once the batch is large.
    assert not made.shifted(6500, 100_000, 0.05)
