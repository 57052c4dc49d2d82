"""What an account may cost is bounded before it is made, and nothing that is said instead is below the true figure."""

import math
from collections.abc import Sequence
from typing import Any

import dp_accounting
import pytest
from dp_accounting import pld, rdp

from engine import accounting
from engine.accounting import LEAST_NOISE, PrivacyEvent, epsilon, noise_multiplier

DELTA = 1e-5


def by_renyi(event: PrivacyEvent) -> float:
    account = rdp.RdpAccountant(list(accounting._ORDERS))
    one = dp_accounting.PoissonSampledDpEvent(event.q, dp_accounting.GaussianDpEvent(event.sigma))
    account.compose(dp_accounting.SelfComposedDpEvent(one, event.count))
    return float(account.get_epsilon(DELTA))


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The grids of the sums that are made."""
    made: list[float] = []
    whole = pld.PLDAccountant

    def counted(**options: Any) -> Any:
        made.append(options["value_discretization_interval"])
        return whole(**options)

    monkeypatch.setattr(pld, "PLDAccountant", counted)
    accounting._pld.cache_clear()
    return made


@pytest.mark.parametrize(
    "event",
    [
        PrivacyEvent(q=0.4, sigma=0.3, count=6_000),
        PrivacyEvent(q=0.4, sigma=0.3, count=100_000),
        PrivacyEvent(q=1e-9, sigma=1.0, count=10**9),
        PrivacyEvent(q=1e-9, sigma=0.3, count=2**62),
    ],
    ids=lambda event: f"{event.count}",
)
def test_what_would_cost_too_much_has_the_figure_of_renyi(event: PrivacyEvent, grids: list[float]) -> None:
    assert epsilon([event], DELTA) == math.ceil(by_renyi(event) * 100) / 100
    assert not grids


@pytest.mark.parametrize(
    "events",
    [
        [PrivacyEvent(q=0.037, sigma=1.0, count=81)],
        [PrivacyEvent(q=0.2, sigma=1.0 + i / 10, count=30) for i in range(4)],
        [PrivacyEvent(q=0.4, sigma=2.0, count=1_000)],
    ],
)
def test_ordinary_accounts_keep_the_fine_grid(events: Sequence[PrivacyEvent], grids: list[float]) -> None:
    epsilon(events, DELTA)
    assert grids == [1e-4]


def test_a_coarser_grid_of_many_groups_errs_upwards(monkeypatch: pytest.MonkeyPatch, grids: list[float]) -> None:
    events = [PrivacyEvent(q=0.05, sigma=1.0 + i / 10, count=3) for i in range(6)]
    fine = epsilon(events, DELTA)
    accounting._pld.cache_clear()
    monkeypatch.setattr(accounting, "_MOST_POINTS", 2e5)
    coarse = epsilon(events, DELTA)
    assert grids[0] == 1e-4 < grids[1] <= 1e-2
    assert fine <= coarse <= fine + 0.1
    accounting._pld.cache_clear()


def test_a_delta_that_no_sum_of_floats_resolves_is_told_by_renyi(grids: list[float]) -> None:
    assert 0 < epsilon([PrivacyEvent(sigma=2.0, sampling="none")], 1e-300) < math.inf
    assert not grids


def test_no_noise_is_sought_below_the_least() -> None:
    assert noise_multiplier(0.1, DELTA, 2e-9, 1) == LEAST_NOISE
    sigma = noise_multiplier(20.0, 1e-300, 1.0, 1, "none")
    assert epsilon([PrivacyEvent(sigma=sigma, sampling="none")], 1e-300) <= 20.0
