"""A lower bound on epsilon is valid where epsilon is known, and the rates of an attack are those of its scores."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from engine.accounting import PrivacyEvent, epsilon
from engine.auditing import chance, guesses, leak, lira, lower_bound, right_guesses, rmia
from engine.noise import drawn, privatise, source


@pytest.mark.parametrize(
    ("made", "right", "bound"), [(1000, 1000, 5.78), (100, 100, 3.47), (100, 90, 1.63), (100, 50, 0.0), (100, 55, 0.0)]
)
def test_the_bound_is_that_of_the_table(made: int, right: int, bound: float) -> None:
    assert lower_bound(1000, made, right, 1e-5) == pytest.approx(bound, abs=0.006)


def _by_hand(canaries: int, made: int, right: int, eps: float, delta: float) -> float:
    """The theorem's terms, one at a time and with exact binomials."""
    p = math.exp(eps) / (1 + math.exp(eps))

    def exactly(k: int) -> float:
        return math.comb(made, k) * p**k * (1 - p) ** (made - k)

    tail = sum(exactly(k) for k in range(right, made + 1))
    slack = max(sum(exactly(k) for k in range(right - i, right)) / i for i in range(1, right + 1))
    return tail + 2 * canaries * delta * slack


@pytest.mark.parametrize(("made", "right", "eps"), [(20, 15, 0.5), (30, 30, 2.0), (12, 7, 0.0)])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_the_chance_is_the_theorems(made: int, right: int, eps: float, delta: float) -> None:
    assert chance(40, made, right, eps, delta) == pytest.approx(min(1.0, _by_hand(40, made, right, eps, delta)))


@cache
def _bound(right: int) -> float:
    return lower_bound(1000, 1000, right, 0.0)


@pytest.mark.parametrize(("eps", "mean"), [(0.5, 0.39), (1.0, 0.88), (2.0, 1.84), (4.0, 3.62)])
def test_it_is_valid_and_close_for_randomised_response(eps: float, mean: float) -> None:
    """Each coin is told rightly with odds of e^eps: exactly epsilon, and the bound is above it in 5 % of runs."""
    runs = 2000
    told = np.random.default_rng(5).binomial(1000, 1 / (1 + math.exp(-eps)), runs)
    bounds = np.array([_bound(int(right)) for right in told])
    above = float((bounds > eps).mean())
    assert above < 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert bounds.mean() == pytest.approx(mean, abs=0.04)


def test_a_guesser_that_reads_the_coins_is_not_valid() -> None:
    """So the test above can fail: a tenth of the coins is given away."""
    told = np.random.default_rng(5).binomial(900, 1 / (1 + math.exp(-1.0)), 300) + 100
    assert np.mean([_bound(int(right)) > 1.0 for right in told]) > 0.5


def test_top_and_bottom_are_guessed_and_the_middle_is_not() -> None:
    scores = np.array([0.3, 5.0, -2.0, 0.1, 4.0, -1.0])
    made = guesses(scores, 4)
    assert made.tolist() == [0, 1, -1, 0, 1, -1]
    assert right_guesses(made, np.array([True, True, False, False, False, True])) == 2
    assert guesses(scores, 0).tolist() == [0] * 6


def _gradient_run(sigma: float, rate: float, steps: int, canaries: int, noise: float) -> tuple[float, float]:
    """(lower bound, claimed epsilon) of one run on nothing but gradient canaries, `noise` times the honest noise."""
    coins = np.random.default_rng().integers(0, 2, canaries).astype(np.bool_)
    scores = np.zeros(canaries)
    for _ in range(steps):
        total = torch.zeros(canaries)
        taken = drawn(canaries, rate)
        total[taken[coins[taken]]] = 0.1
        privatise([total], 0.1, sigma * noise, 1.0, source("torch"))
        scores += total.numpy()
    delta = 1e-5
    right = right_guesses(guesses(scores, canaries // 2), coins)
    return lower_bound(canaries, canaries // 2, right, delta), epsilon(
        [PrivacyEvent(q=rate, sigma=sigma, count=steps)], delta
    )


def test_the_bound_is_below_epsilon_over_many_small_runs() -> None:
    for sigma, rate, steps in ((1.0, 0.2, 10), (2.0, 0.5, 30), (4.0, 1.0, 8)):
        found = [_gradient_run(sigma, rate, steps, 1000, 1.0) for _ in range(40)]
        assert all(bound <= claim for bound, claim in found)
        assert any(bound > 0.05 for bound, _ in found), "it shows something"


def test_noise_that_is_far_too_small_is_heard() -> None:
    bound, claim = _gradient_run(4.0, 1.0, 8, 2000, 0.05)
    assert bound > claim


def test_scores_that_say_nothing_catch_as_many_as_they_may() -> None:
    draw = np.random.default_rng(1)
    found = leak(draw.normal(size=4000), draw.integers(0, 2, 4000).astype(np.bool_), 0.05)
    assert found.low <= 0.05 <= found.high
    assert found.false_alarms <= 0.05
    assert found.auc == pytest.approx(0.5, abs=0.03)


def test_members_and_labels_swapped_turn_the_curve_over() -> None:
    draw = np.random.default_rng(1)
    members = draw.integers(0, 2, 1000).astype(np.bool_)
    scores = draw.normal(size=1000) + 1.5 * members
    assert leak(scores, members, 0.01).auc > 0.8
    assert leak(scores, ~members, 0.01).auc < 0.2
    assert leak(members.astype(np.float64), members, 0.01).rate == 1.0


def test_the_interval_is_exact() -> None:
    scores, members = np.arange(100.0), np.arange(100) >= 50
    found = leak(scores, members, 0.02)
    assert (found.rate, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(stats.binomtest(50, 50).proportion_ci(method="exact").low)


def _attacked(memory: float, references: int, honest: bool = True) -> dict[str, float]:
    """AUC of each attack on log-odds that a model raises by `memory` for its members, over rows that differ much."""
    draw, n = np.random.default_rng(3), 2000
    hardness = draw.normal(0, 3, n)
    members = draw.integers(0, 2, n).astype(np.bool_)
    in_reference = np.stack([draw.permutation(n) < n // 2 for _ in range(references)])
    if not honest:
        in_reference = np.stack([members] * references)
    target = hardness + memory * members + draw.normal(0, 0.5, n)
    others = hardness + memory * in_reference + draw.normal(0, 0.5, (references, n))
    public = draw.normal(0, 3, 400)
    scores = {
        "loss": target,
        "rmia": rmia(target, others, public, public + draw.normal(0, 0.5, (references, 400))),
        "lira": lira(target, others, in_reference),
    }
    return {name: leak(one, members, 0.01).auc for name, one in scores.items()}


def test_references_take_the_hardness_of_rows_away() -> None:
    found = _attacked(1.5, 8)
    assert found["rmia"] > found["loss"] + 0.1
    assert found["lira"] > found["loss"] + 0.1
    nothing = _attacked(0.0, 8)
    assert all(abs(auc - 0.5) < 0.05 for auc in nothing.values())
