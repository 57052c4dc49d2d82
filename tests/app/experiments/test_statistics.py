"""The statistics of experiments against slow, obvious oracles: enumeration, scipy, and simulated experiments."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats

from app.experiments.scores import score_of
from app.experiments.statistics import (
    Array,
    Sampled,
    Table,
    _in_few,
    alike,
    components,
    holm,
    interval,
    pareto,
    permutation_p,
    sample,
    seeds_needed,
    t_quantile,
    verdict,
)
from engine.evaluate import METRICS, class_figures

SHARE = score_of("accuracy", 2)


def parts_of(hits: Any) -> list[Table]:
    """(items, 2) for each seed, of right and wrong answers (seeds, items)."""
    table = np.asarray(hits, np.float64)
    return [SHARE.parts(row[:, None]) for row in table]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "bits_per_byte", "recall_at_10"])
def test_a_score_of_sums_is_the_score_of_the_rows(metric: str) -> None:
    drawn = np.random.default_rng(0)
    if metric == "bits_per_byte":
        figures = drawn.gamma(2.0, 30.0, (50, 2)) + 1
    else:
        figures = class_figures(drawn.integers(0, 4, 50), drawn.integers(0, 5, 50))
    score = score_of(metric, 7)  # two classes that never occur
    for rows in (np.arange(50), drawn.integers(0, 50, 50)):
        counts = np.bincount(rows, minlength=50)
        found = score.of(counts @ score.parts(figures))
        assert found == pytest.approx(METRICS[metric].value(figures[rows]))


def test_few_items_are_permuted_in_every_way() -> None:
    drawn = np.random.default_rng(1)
    treatment, baseline = drawn.integers(0, 2, (2, 3, 8))
    differences = (treatment - baseline).mean(axis=0)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    every = np.abs((signs * differences).mean(axis=1))
    oracle = float((every >= abs(differences.mean()) - 1e-12).mean())
    assert permutation_p(parts_of(treatment), parts_of(baseline), SHARE.of, 0) == pytest.approx(oracle)
    assert 0 < oracle < 1


def test_many_items_are_permuted_as_scipy_does() -> None:
    drawn = np.random.default_rng(2)
    baseline = drawn.random((3, 80)) < 0.7
    treatment = baseline ^ (drawn.random((3, 80)) < 0.2)
    differences = (treatment.astype(float) - baseline).mean(axis=0)
    oracle = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(3)
    ).pvalue
    assert permutation_p(parts_of(treatment), parts_of(baseline), SHARE.of, 0) == pytest.approx(oracle, abs=0.02)


def test_equal_arms_have_nothing_to_permute() -> None:
    same = parts_of(np.ones((3, 5)))
    assert permutation_p(same, same, SHARE.of, 0) == 1.0


def test_a_permuted_f1_exchanges_whole_answers() -> None:
    truth = np.array([0, 0, 1, 1])
    said = [np.array([0, 1, 1, 0]), np.array([0, 0, 1, 0])]
    score = score_of("macro_f1", 2)
    first, second = ([score.parts(class_figures(truth, one))] for one in said)

    def difference(swap: Sequence[int]) -> float:
        one, other = np.where(swap, said[1], said[0]), np.where(swap, said[0], said[1])
        f1 = METRICS["macro_f1"].value
        return abs(f1(class_figures(truth, one)) - f1(class_figures(truth, other)))

    every = [difference(swap) for swap in itertools.product([0, 1], repeat=4)]
    oracle = float(np.mean(np.array(every) >= difference([0] * 4) - 1e-12))
    assert permutation_p(first, second, score.of, 0) == pytest.approx(oracle)


def test_few_numbers_tell_items_apart_as_all_their_columns_do() -> None:
    table = np.random.default_rng(8).choice([-2, -1, 0, 0, 0, 1], (300, 5))
    whole, few = alike(table), alike(_in_few(sparse.csr_array(table)))
    assert 100 < len(whole[0]) < 300
    for one, other in zip(whole, few, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sparse_table_gives_what_a_dense_one_does() -> None:
    drawn = np.random.default_rng(9)
    truth, score = drawn.integers(0, 6, 150), score_of("macro_f1", 6)
    arms: list[list[Any]] = [
        [score.parts(class_figures(truth, np.where(drawn.random(150) < share, truth, 0))) for _ in range(3)]
        for share in (0.7, 0.75)
    ]
    dense: list[list[Any]] = [[one.toarray() for one in arm] for arm in arms]
    each = np.ones(150, np.int64)
    told, told_dense = (sample(given[0], each, score.of, 3, resamples=50) for given in (arms, dense))
    np.testing.assert_array_equal(told.drawn, told_dense.drawn)
    np.testing.assert_array_equal(told.by_seed, told_dense.by_seed)
    p_value = permutation_p(arms[1], arms[0], score.of, 3)
    assert p_value == permutation_p(dense[1], dense[0], score.of, 3)
    assert 0.001 < p_value < 0.999


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]


def test_students_quantiles() -> None:
    degrees = np.array([1, 2, 3, 4, 5, 10, 30, 1000])
    np.testing.assert_allclose(t_quantile(degrees), stats.t.ppf(0.975, degrees), rtol=5e-3)


def crossed(drawn: np.random.Generator, seeds: int, items: int, of_items: float, of_seeds: float) -> Array:
    """Differences (seeds, items) around zero, whose items, seeds and cells vary."""
    found: Array = (
        drawn.normal(0, of_items, items) + drawn.normal(0, of_seeds, (seeds, 1)) + drawn.normal(0, 0.2, (seeds, items))
    )
    return found


def mean_of(differences: Array, key: int = 0, resamples: int = 400) -> Sampled:
    parts = [np.stack([row, np.ones_like(row)], axis=1) for row in differences]
    each = np.ones(differences.shape[1], np.int64)
    return sample(parts, each, lambda sums: sums[..., 0] / sums[..., 1], key, resamples=resamples)


@pytest.mark.parametrize(("of_items", "of_seeds"), [(0.5, 0.0), (0.05, 0.02), (0.1, 0.1)])
def test_intervals_hold_what_they_promise(of_items: float, of_seeds: float) -> None:
    """Of 300 experiments whose true difference is zero the interval leaves it out in about a twentieth."""
    drawn, kept, runs = np.random.default_rng(4), 0, 300
    for number in range(runs):
        low, high = interval(mean_of(crossed(drawn, 3, 60, of_items, of_seeds)), number)
        kept += low <= 0 <= high
    assert 0.93 <= kept / runs <= 0.99


def test_items_alone_would_be_too_sure_where_seeds_differ() -> None:
    """The same simulation with the seeds' part left out: what the t is there for."""
    drawn, kept = np.random.default_rng(4), 0
    for _ in range(300):
        ends = np.quantile(mean_of(crossed(drawn, 3, 60, 0.1, 0.1)).drawn.mean(axis=1), [0.025, 0.975])
        kept += ends[0] <= 0 <= ends[1]
    assert kept / 300 < 0.6


def test_the_components_are_those_that_went_in() -> None:
    drawn = np.random.default_rng(5)
    found = [components(mean_of(crossed(drawn, 20, 200, 0.5, 0.1))) for _ in range(20)]
    assert np.mean([one.items for one in found]) == pytest.approx(0.5**2 / 200, rel=0.15)
    assert np.mean([one.seeds for one in found]) == pytest.approx(0.1**2, rel=0.25)
    assert np.mean([one.mixed for one in found]) == pytest.approx(0.2**2 / 200, rel=0.15)
    # What cells vary by is not laid to the seeds.
    none = [components(mean_of(crossed(drawn, 20, 200, 0.5, 0.0))) for _ in range(10)]
    assert np.mean([one.seeds for one in none]) < 0.4 * 0.2**2 / 200


def hits_sampled(hits: Any, key: int) -> Sampled:
    return sample(parts_of(hits), np.ones(np.shape(hits)[1], np.int64), SHARE.of, key)


def test_draws_are_paired_and_repeat() -> None:
    hits = np.random.default_rng(6).integers(0, 2, (2, 30))
    one, other = (hits_sampled(hits, 7) for _ in range(2))
    np.testing.assert_array_equal(one.less(other, 0.0).drawn, 0.0)
    assert np.abs(one.less(hits_sampled(hits, 8), 0.0).drawn).max() > 0


def test_items_that_are_alike_may_be_put_together() -> None:
    hits = (np.random.default_rng(6).random((3, 400)) < 0.8).astype(np.float64)
    kinds, counts = alike(hits.T)
    assert len(kinds) <= 8
    together = sample(parts_of(hits[:, kinds]), counts, SHARE.of, 1)
    apart = hits_sampled(hits, 1)
    np.testing.assert_allclose(together.by_seed, apart.by_seed)
    np.testing.assert_allclose(np.cov(together.drawn.T), np.cov(apart.drawn.T), rtol=0.15, atol=2e-5)


@pytest.mark.parametrize(
    ("ends", "p", "more", "expected"),
    [
        ((0.02, 0.05), 0.01, True, "better"),
        ((0.02, 0.05), 0.01, False, "worse"),
        ((-0.05, -0.02), 0.01, True, "worse"),
        ((-0.05, -0.02), 0.01, False, "better"),
        ((0.02, 0.05), 0.06, True, "undecided"),
        ((-0.01, 0.05), 0.01, True, "undecided"),
        ((-0.009, 0.009), 1.0, True, "no_difference"),
        ((0.001, 0.009), 0.01, True, "no_difference"),
        ((-0.01, 0.009), 1.0, True, "undecided"),
    ],
)
def test_a_verdict_says_when_the_data_do_not_decide(
    ends: tuple[float, float], p: float, more: bool, expected: str
) -> None:
    assert verdict(ends, p, 0.01, more_is_better=more) == expected


def test_more_seeds_help_where_seeds_differ_and_not_where_items_are_few() -> None:
    rng = np.random.default_rng(7)
    noise = np.array([-0.06, 0.0, 0.06])
    shaky = Sampled(0.03 + noise, rng.normal(0.03, 0.004, (500, 1)) + noise, 0.0)
    needed = seeds_needed(shaky, 0.01, 1)
    assert needed is not None
    # By the plain formula: the half-width at this many seeds is below the difference, at one fewer above it.
    total = 3 + needed

    def half(seeds: int) -> float:
        return float(np.sqrt(1.96**2 * 0.004**2 + stats.t.ppf(0.975, seeds - 1) ** 2 * 0.06**2 / seeds))

    assert half(total + 1) < 0.03 < half(total - 1)
    few = Sampled(np.full(3, 0.03), np.repeat(rng.normal(0.03, 0.05, (500, 1)), 3, axis=1), 0.0)
    assert seeds_needed(few, 0.01, 1) is None


def test_what_was_never_seen_is_not_ruled_out() -> None:
    """Ten rows that all arms get right do not prove that no arm ever errs."""
    right = hits_sampled(np.ones((3, 10)), 0)
    low, high = interval(right.less(right, 1 / 12), 0)
    assert low < -0.05 < 0.05 < high


def test_the_front_is_of_those_that_nobody_beats() -> None:
    assert pareto([(1, 1), (2, 0), (0, 2), (1, 0), (2, 0)]) == [0, 1, 2, 4]
    assert pareto([]) == []
