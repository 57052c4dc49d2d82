"""Scores and intervals against slow oracles: scikit-learn, bisection, and how often an interval covers."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from engine.evaluate import (
    METRICS,
    accuracy,
    agreement,
    class_figures,
    interval,
    loss,
    macro_f1,
    measured,
    median,
    paired_difference,
    race_ratio,
    recalls,
    rounds_needed,
    wilson,
)
from engine.measure import race
from engine.receipt import latency

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs)
def test_scores_equal_scikit_learn(rows: list[tuple[int, int]]) -> None:
    truth, answers = np.array(rows, dtype=np.int64).T
    assert accuracy(truth, answers) == pytest.approx(accuracy_score(truth, answers))
    assert macro_f1(truth, answers) == pytest.approx(f1_score(truth, answers, average="macro", zero_division=0))
    assert METRICS["macro_f1"].value(class_figures(truth, answers)) == macro_f1(truth, answers)
    present = sorted(set(truth.tolist()))
    expected = recall_score(truth, answers, average=None, labels=present, zero_division=0)
    found = recalls(truth, answers, 4)
    assert [found[k] for k in present] == pytest.approx(list(expected))
    assert all(found[k] is None for k in range(4) if k not in present)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 7), (880, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_holds_the_shares_that_the_count_does_not_refute(right: int, n: int, confidence: float) -> None:
    z, seen = NormalDist().inv_cdf(0.5 + confidence / 2), right / n
    shares = np.linspace(0, 1, 200_001)
    kept = shares[np.abs(seen - shares) <= z * np.sqrt(shares * (1 - shares) / n) + 1e-12]
    assert wilson(right, n, confidence) == pytest.approx((kept.min(), kept.max()), abs=1e-5)


def test_a_difference_that_was_not_seen_is_not_certain() -> None:
    low, high = paired_difference(0, 0, 50)
    assert low < 0 < high
    assert paired_difference(12, 0, 100)[0] > 0
    assert paired_difference(3, 9, 100) == pytest.approx(tuple(-x for x in reversed(paired_difference(9, 3, 100))))


def test_the_paired_interval_covers_the_true_difference() -> None:
    drawn = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        first, second, _, _ = drawn.multinomial(200, [0.05, 0.02, 0.83, 0.10])
        low, high = paired_difference(int(first), int(second), 200)
        covered += low <= 0.03 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_the_loss_counts_rows_that_one_alone_has_right() -> None:
    truth = np.array([0, 0, 1, 1, 1, 0, 1, 0], dtype=np.int64)
    was = np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64)
    now = np.array([0, 1, 1, 1, 1, 1, 1, 1], dtype=np.int64)
    found = loss("accuracy", class_figures(truth, was), class_figures(truth, now), seed=0)
    assert found.value == pytest.approx(6 / 8 - 5 / 8)
    assert (found.low, found.high) == pytest.approx(paired_difference(2, 1, 8))
    assert agreement(was == now).value == pytest.approx(5 / 8)


def test_a_bootstrap_interval_is_seeded_and_holds_the_value() -> None:
    drawn = np.random.default_rng(0)
    truth = drawn.integers(0, 3, 200)
    answers = np.where(drawn.random(200) < 0.7, truth, drawn.integers(0, 3, 200))
    first, again = (measured("macro_f1", class_figures(truth, answers), seed=5) for _ in range(2))
    assert first == again
    assert first.low < first.value < first.high
    assert loss("macro_f1", class_figures(truth, truth), class_figures(truth, answers), seed=5).low > 0


def test_the_median_interval_covers_as_promised() -> None:
    drawn = np.random.default_rng(1)
    medians = [median(drawn.normal(1, 1, 41)) for _ in range(400)]
    hits = sum(one.low <= 1.0 <= one.high for one in medians)
    assert hits / 400 >= 0.93


def test_macro_f1_is_no_surer_than_accuracy_on_the_same_rows() -> None:
    truth = np.array([0, 1] * 5)
    perfect = measured("macro_f1", class_figures(truth, truth), seed=1)
    assert perfect.value == 1
    assert perfect.low == pytest.approx(measured("accuracy", class_figures(truth, truth), seed=1).low)
    same = loss("macro_f1", class_figures(truth, truth), class_figures(truth, truth), seed=1)
    assert same.low < 0 < same.high


def test_the_few_rows_of_a_rare_class_leave_macro_f1_open() -> None:
    truth = np.repeat([0, 1, 2], [98, 98, 4])
    perfect = class_figures(truth, truth)
    # Where one row in five of the rare class is wrong, such as many draws of 200 rows show none of them.
    assert measured("macro_f1", perfect, seed=1).low < 0.96
    assert loss("macro_f1", perfect, perfect, seed=1).high > 0.04
    even = np.repeat([0, 1, 2], [67, 67, 66])
    assert measured("macro_f1", class_figures(even, even), seed=1).low > 0.96


def test_the_figure_of_a_few_rows_is_covered_as_promised() -> None:
    drawn = np.random.default_rng(7)
    covered = lost = 0
    for _ in range(40):
        sizes = drawn.integers(200, 900, 2)
        nats = sizes * drawn.normal(1.0, 0.2, 2) * np.log(2)
        reference = np.stack([nats, sizes], axis=1)
        exported = np.stack([nats + sizes * drawn.normal(0.02, 0.01, 2) * np.log(2), sizes], axis=1)
        found, difference = measured("bits_per_byte", reference, 1), loss("bits_per_byte", reference, exported, 1)
        covered += found.low <= 1.0 <= found.high
        lost += difference.low <= 0.02 <= difference.high
    assert min(covered, lost) / 40 >= 0.8
    alone = np.array([[500.0, 400.0]])
    assert loss("bits_per_byte", alone, alone, 1).high > 1
    assert interval(alone, lambda rows: float(rows.sum()))[0] == 0.0


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99, 0.999])
def test_a_race_lasts_until_its_interval_can_be_so_sure(confidence: float) -> None:
    rounds = rounds_needed(confidence)
    times = race(lambda _: None, lambda _: None, inputs=1, rounds=8, least=rounds, seconds=0.0)
    assert [len(one) for one in times.values()] == [rounds, rounds]
    drawn = np.random.default_rng(2)
    medians = [median(drawn.normal(1, 1, rounds // 2), confidence) for _ in range(2000)]
    assert np.mean([one.low <= 1.0 <= one.high for one in medians]) >= confidence - 0.01


@pytest.mark.parametrize("rounds", [8, 9, 60, 61])
def test_who_comes_second_in_a_round_does_not_decide_a_race(rounds: int) -> None:
    # As measured: whoever follows the other finds its caches, the file twice as slow for it.
    reference = [0.43 if number % 2 == 0 else 0.51 for number in range(rounds)]
    exported = [0.14 if number % 2 == 0 else 0.07 for number in range(rounds)]
    found = race_ratio(exported, reference)
    assert (found.value, found.low, found.high) == pytest.approx((0.21 / 0.94,) * 3)
    assert found.n == rounds // 2
    shown = latency({"reference": reference, "exported": exported})
    assert (shown["ratio"], shown["ratio_ci95"]) == (0.2234, [0.2234, 0.2234])
    assert shown["runs"] == rounds


def test_bits_per_byte_never_reach_below_zero() -> None:
    lopsided = np.array([[1, 9], [2, 9], [60, 9], [1, 9], [12, 9]], dtype=np.float64)
    found = measured("bits_per_byte", lopsided, seed=0)
    assert (found.low, found.value < found.high) == (0.0, True)
