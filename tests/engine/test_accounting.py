"""Epsilon is dp-accounting's, never below it, and what no accountant may say has no number."""

import itertools
import math

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from engine import accounting
from engine.accounting import (
    PrivacyEvent,
    admitted,
    best_order,
    epsilon,
    merged,
    noise_multiplier,
    planned,
)
from engine.errors import InvalidPlan
from engine.estimate import estimate
from engine.spec import Spec

ONE = PrivacyEvent(q=0.037, sigma=1.0, count=81)
NON_PRIVATE = PrivacyEvent(mechanism="none", sigma=0.0, sampling="none")
DELTA = 6e-5


def _by_hand(events: list[tuple[float, float, int]], delta: float) -> float:
    """The library's own figure for (q, sigma, count)."""
    account = pld.PLDAccountant()
    for q, sigma, count in events:
        event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
        account.compose(dp_accounting.SelfComposedDpEvent(event, count))
    return float(account.get_epsilon(delta))


def test_the_figure_is_the_librarys_rounded_up() -> None:
    exact = _by_hand([(0.037, 1.0, 81)], DELTA)
    found = epsilon([ONE], DELTA)
    assert found == math.ceil(exact * 100) / 100
    assert found == pytest.approx(2.04, abs=0.011)  # 2.03 by the library, and never below it


def test_events_are_summed_and_not_their_epsilons() -> None:
    four = epsilon([ONE] * 4, DELTA)
    assert four == epsilon([ONE.times(324)], DELTA)
    assert four == pytest.approx(3.83, abs=0.02)
    assert four < 0.5 * 4 * epsilon([ONE], DELTA)


def test_order_does_not_matter() -> None:
    events = [ONE, PrivacyEvent(q=0.1, sigma=2.0, count=5), PrivacyEvent(q=1.0, sigma=9.0, sampling="none")]
    assert len({epsilon(list(order), DELTA) for order in itertools.permutations(events)}) == 1


def test_without_sampling_it_is_the_analytic_gaussian() -> None:
    """Balle and Wang 2018, theorem 8."""
    sigma, delta = 3.0, 1e-5
    found = epsilon([PrivacyEvent(q=1.0, sigma=sigma, sampling="none")], delta)

    def delta_at(eps: float) -> float:
        first = stats.norm.cdf(1 / (2 * sigma) - eps * sigma)
        return float(first - math.exp(eps) * stats.norm.cdf(-1 / (2 * sigma) - eps * sigma))

    assert delta_at(found) <= delta
    assert delta_at(found - 0.02) > delta


def test_privacy_loss_is_never_above_renyi() -> None:
    for event in (ONE, PrivacyEvent(q=0.2, sigma=3.0, count=40), PrivacyEvent(q=1.0, sigma=5.0, sampling="none")):
        account = rdp.RdpAccountant()
        account.compose(accounting._as_dp_event(event))
        assert epsilon([event], DELTA) <= account.get_epsilon(DELTA) + 0.01


@pytest.mark.parametrize(
    "event",
    [
        NON_PRIVATE,
        PrivacyEvent(q=0.1, sigma=1.0, sampling="shuffled"),
        PrivacyEvent(q=0.1, sigma=1.0, sampling="fixed_size"),
        PrivacyEvent(q=0.1, sigma=1.0, sampling="none"),
        PrivacyEvent(q=0.1, sigma=0.0),
    ],
    ids=lambda event: f"{event.mechanism} {event.sampling} {event.sigma:g}",
)
def test_what_nothing_bounds_has_no_number(event: PrivacyEvent) -> None:
    assert epsilon([event], DELTA) == math.inf
    assert epsilon([ONE, event], DELTA) == math.inf, "the private part alone would be a lie"
    assert admitted([ONE, event], DELTA, 8.0) == math.inf


def test_nothing_costs_nothing() -> None:
    assert epsilon([], DELTA) == admitted([], DELTA, 8.0) == 0.0


@settings(max_examples=5, deadline=None)
@given(
    target=st.sampled_from([0.5, 1.0, 3.0, 8.0]),
    q=st.sampled_from([0.01, 0.1, 0.5]),
    steps=st.sampled_from([1, 20, 300]),
)
def test_the_noise_is_the_least_that_suffices(target: float, q: float, steps: int) -> None:
    sigma = noise_multiplier(target, 1e-5, q, steps)
    assert epsilon([PrivacyEvent(q=q, sigma=sigma, count=steps)], 1e-5) <= target
    assert _by_hand([(q, sigma * 0.98, steps)], 1e-5) > target * 0.995


def test_a_ledgers_order_buys_most_at_the_whole_budget() -> None:
    for target, delta in ((1.0, 1e-5), (3.0, 1e-5), (8.0, 1e-6)):
        order = best_order(target, delta)

        def bought(at: float, target: float = target, delta: float = delta) -> float:
            sigmas = (s / 100 for s in itertools.count(10))
            return next(s for s in sigmas if admitted([PrivacyEvent(sigma=s, sampling="none")], delta, at) <= target)

        assert bought(order) <= min(bought(order * 0.8 if order > 2 else order), bought(order * 1.25))


def test_the_filter_is_never_below_the_figure_of_what_was_run() -> None:
    for count in (10, 81, 500):
        event = ONE.times(count)
        assert admitted([event], DELTA, best_order(3.0, DELTA)) >= epsilon([event], DELTA) - 0.01


def test_events_survive_json_and_refuse_what_they_do_not_know() -> None:
    assert PrivacyEvent.from_json(ONE.to_json()) == ONE
    assert ONE.to_json() == {"mechanism": "gaussian", "q": 0.037, "sigma": 1.0, "count": 81, "sampling": "poisson"}
    for wrong in ({"sigma": -1.0}, {"sigma": 1.0, "count": 0}, {"sigma": 1.0, "q": 1.5}, {"sigma": 1.0, "seed": 7}):
        with pytest.raises(ValidationError):
            PrivacyEvent.from_json(wrong)


def test_equal_events_are_one_group() -> None:
    assert merged([ONE, ONE.times(2), PrivacyEvent(sigma=2.0)]) == [ONE.times(83), PrivacyEvent(sigma=2.0)]


def _spec(**chosen: object) -> Spec:
    body = {"task": "text_classification", "dataset": "none", "instructions": [{"name": "dp_sgd", **chosen}]}
    return Spec.model_validate(body)


def test_a_plan_tells_its_releases_before_it_runs() -> None:
    (event,) = planned(_spec(epsilon=3.0, steps=100, expected_batch=512), 6906)
    assert (event.q, event.count, event.sampling) == (512 / 6906, 100, "poisson")
    assert event.sigma == pytest.approx(1.26, abs=0.02)
    assert epsilon([event], 6906**-1.1) <= 3.0
    assert planned(Spec.model_validate({"task": "text_classification", "dataset": "none"}), 6906) == []


def test_epochs_say_how_many_steps_where_nobody_else_does() -> None:
    body = _spec(noise_multiplier=1.0).model_copy(update={"training": Spec.model_fields["training"].default})
    (event,) = planned(body, 1000)
    assert (event.count, event.q) == (12, 0.25)


@pytest.mark.parametrize(
    ("chosen", "pointer"),
    [
        ({"expected_batch": 600}, "/instructions/0/expected_batch"),
        ({"delta": 0.01}, "/instructions/0/delta"),
        ({"noise_multiplier": 1.0, "delta": 0.001}, "/instructions/0/delta"),
    ],
)
def test_terms_without_a_guarantee_are_refused(chosen: dict[str, object], pointer: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        planned(_spec(**chosen), 1000)
    assert [fault.pointer for fault in refused.value.faults] == [pointer]
    assert all(fault.remedy for fault in refused.value.faults)


def test_an_estimate_tells_the_draws_as_steps() -> None:
    splits = {"train": 1000, "valid": 100, "test": 100}
    assert estimate(_spec(steps=7), splits)["total_steps"] == 7
    plain = Spec.model_validate({"task": "text_classification", "dataset": "none"})
    assert estimate(plain, splits)["total_steps"] == 3 * 32
    assert estimate(_spec(steps=7, expected_batch=900), splits)["total_steps"] == 3 * 32, (
        "the plan is refused elsewhere"
    )
