"""Noise has the variance that the account rests on, rows are drawn independently, and no two draws are alike.

Chi-square of a million values finds a slip of 1 %; thresholds are at one in a million, so that chance does not fail it.
"""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from engine import noise
from engine.noise import Stream, coins, drawn, privatise, source

RARE = 1e-6


def _assert_variance(values: Tensor, deviation: float) -> None:
    n = values.numel()
    statistic = float((values.double() / deviation).square().sum())
    assert min(stats.chi2.cdf(statistic, n), stats.chi2.sf(statistic, n)) > RARE, (n, float(values.std()), deviation)


@pytest.mark.parametrize("name", ["os", "torch"])
def test_the_values_are_normal(name: noise.Source) -> None:
    values = torch.cat([source(name)(10_001) for _ in range(20)])
    assert len(values) == 200_020
    _assert_variance(values, 1.0)
    assert stats.kstest(values.numpy(), "norm").pvalue > RARE
    assert abs(float((values[:-1] * values[1:]).mean())) < 5 / len(values) ** 0.5, "neighbours know nothing"
    assert abs(float((values[: len(values) // 2] * values[len(values) // 2 :]).mean())) < 5 / (len(values) / 2) ** 0.5


@pytest.mark.parametrize("name", ["os", "torch"])
def test_noise_has_the_planned_variance_once_a_step(name: noise.Source) -> None:
    """Two thousand steps on zero gradients: noise halved, added a chunk, or scaled by another number, is seen."""
    sigma, bound, divisor, steps = 0.8, 0.3, 64.0, 2000
    found = []
    for _ in range(steps):
        sums = [torch.zeros(20, 10), torch.zeros(50)]
        privatise(sums, bound, sigma, divisor, source(name))
        found.append(torch.cat([one.flatten() for one in sums]))
    _assert_variance(torch.stack(found), sigma * bound / divisor)


def test_a_slip_of_two_hundredths_is_seen() -> None:
    values = torch.randn(500_000, dtype=torch.float64)
    with pytest.raises(AssertionError):
        _assert_variance(values * 1.02, 1.0)


def test_the_sum_passes_through_unbiased_and_is_divided_by_the_fixed_number() -> None:
    totals = torch.zeros(3)
    for _ in range(400):
        sums = [torch.tensor([1.0, -2.0, 0.5])]
        privatise(sums, 1.0, 1.0, 10.0, source("os"))
        totals += sums[0]
    assert float((totals / 400 - torch.tensor([0.1, -0.2, 0.05])).abs().max()) < 5 * 0.1 / 20


def test_rounding_to_the_grid_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise's deviation covers the bound and what rounding may add to it."""
    asked: list[float] = []

    def recorded(count: int) -> Tensor:
        asked.append(count)
        return torch.ones(count, dtype=torch.float64)

    weights, bound, sigma = 1 << 20, 1.0, 1.0
    sums = [torch.zeros(weights)]
    privatise(sums, bound, sigma, 1.0, recorded)
    grid = 2.0**-20
    assert sum(asked) == weights, "one value a weight, once"
    assert float(sums[0][0]) >= bound + grid * weights**0.5 - grid
    assert torch.equal(sums[0] / grid, (sums[0] / grid).round())


def test_low_bits_carry_nothing() -> None:
    grid = 2.0**-20
    sums = [torch.tensor([0.1234567, grid / 3, -0.9])]
    privatise(sums, 1.0, 1.0, 1.0, lambda count: torch.zeros(count, dtype=torch.float64))
    assert torch.equal(sums[0], (torch.tensor([0.1234567, grid / 3, -0.9]) / grid).round() * grid)


def test_no_two_streams_are_alike_and_the_seed_does_not_matter() -> None:
    first = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)
        first.append((source("os")(50), source("torch")(50), drawn(1000, 0.5), coins(64)))
    for before, after in zip(*first, strict=True):
        assert len(before) != len(after) or not np.array_equal(np.asarray(before), np.asarray(after))


def test_secret_randomness_is_not_stored() -> None:
    with pytest.raises(TypeError, match="not stored"):
        pickle.dumps(Stream())


def test_rows_are_drawn_by_themselves_with_one_rate() -> None:
    """Inclusion is binomial for each row, for each draw, and from one draw to the next."""
    rows, rate, draws = 200, 0.13, 3000
    taken = np.zeros((draws, rows), np.bool_)
    for number in range(draws):
        taken[number, drawn(rows, rate)] = True
    for axis, trials in ((0, draws), (1, rows)):
        counts = taken.sum(axis)
        statistic = float(((counts - trials * rate) ** 2 / (trials * rate * (1 - rate))).sum())
        # The variance of a count over the others is that of a binomial: shuffled batches of one size have none.
        low, high = stats.chi2.cdf(statistic, len(counts)), stats.chi2.sf(statistic, len(counts))
        assert min(low, high) > RARE, axis
    both = float((taken[:-1] & taken[1:]).mean())
    assert abs(both - rate**2) < 5 * (rate**2 / (draws * rows)) ** 0.5


def test_all_rows_are_drawn_at_rate_one_and_draws_may_be_empty() -> None:
    assert drawn(5, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert any(len(drawn(5, 0.01)) == 0 for _ in range(5))
    assert len(drawn(0, 0.5)) == 0
