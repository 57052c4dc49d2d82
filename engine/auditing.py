"""What an attack on a trained model proves. Knows no run: counts and scores in, bounds and rates out.

One training run bounds epsilon from below: many canaries are in or out by fair coins of their own, and a guesser who
cannot tell them apart is right half of the time (Steinke, Nasr and Jagielski 2023).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.lazy import scipy_stats

Scores = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def guesses(scores: Scores, made: int) -> npt.NDArray[np.int64]:
    """1 (in) for the top half of `made` guesses, -1 (out) for the bottom half, 0 (no guess) between; (canaries,)."""
    order = np.argsort(scores, kind="stable")
    found = np.zeros(len(scores), np.int64)
    found[order[: made // 2]] = -1
    found[order[len(order) - made // 2 :]] = 1
    return found


def right_guesses(made: npt.NDArray[np.int64], coins: Mask) -> int:
    """How many guesses agree with the coins."""
    return int(((made == 1) & coins).sum() + ((made == -1) & ~coins).sum())


def chance(canaries: int, made: int, right: int, epsilon: float, delta: float) -> float:
    """The most likely that an (epsilon, delta)-private run lets so many guesses be right (theorem 5.2, appendix D)."""
    rate = 1 / (1 + math.exp(-epsilon))
    tail = float(scipy_stats().binom.sf(right - 1, made, rate))
    if not right:
        return min(1.0, tail)
    below = np.cumsum(scipy_stats().binom.pmf(right - np.arange(1, right + 1), made, rate))
    slack = float((below / np.arange(1, right + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * slack)


def lower_bound(canaries: int, made: int, right: int, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that so many right guesses refute at `confidence`; 0 where they refute none."""
    doubt = 1 - confidence
    if chance(canaries, made, right, 0.0, delta) >= doubt:
        return 0.0
    low, high = 0.0, 1.0
    while chance(canaries, made, right, high, delta) < doubt:
        low, high = high, 2 * high
        if high > 64:  # more than any number of canaries can show
            break
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(canaries, made, right, middle, delta) < doubt else (low, middle)
    return low


@dataclass(frozen=True)
class Leak:
    """How well members were told apart: true positives at a rate of false ones, with its 95 % interval, and the AUC."""

    rate: float
    low: float
    high: float
    auc: float
    false_alarms: float


def leak(scores: Scores, members: Mask, false_positive_rate: float) -> Leak:
    """The attack's figures at the strictest threshold that `false_positive_rate` of the non-members reach.

    The interval is exact for the members at that threshold (Clopper and Pearson 1934).
    """
    inside, outside = scores[members], np.sort(scores[~members])
    allowed = int(false_positive_rate * len(outside))
    threshold = outside[len(outside) - allowed - 1] if len(outside) else -np.inf
    caught, n = int((inside > threshold).sum()), len(inside)
    low = float(scipy_stats().beta.ppf(0.025, caught, n - caught + 1)) if caught else 0.0
    high = float(scipy_stats().beta.ppf(0.975, caught + 1, n - caught)) if caught < n else 1.0
    return Leak(caught / n, low, high, _auc(inside, outside), float((outside > threshold).mean()))


def _auc(inside: Scores, outside: Scores) -> float:
    """The chance that a member scores above a non-member, ties counting half."""
    below = np.searchsorted(outside, inside, side="left")
    not_above = np.searchsorted(outside, inside, side="right")
    return float((below + not_above).sum() / (2 * len(inside) * len(outside)))


def rmia(target: Scores, references: Scores, population: Scores, population_references: Scores) -> Scores:
    """Scores (n,) by relative likelihood: the share of population rows that a row's likelihood ratio beats.

    Args:
        target: log-likelihood of each row under the model, (n,).
        references: the same under each reference model, (k, n), in half of which each row is a member.
        population: log-likelihoods of rows that no model has seen, (p,).
        population_references: (k, p).

    Zarifzadeh, Liu and Shokri 2024, section 3, with gamma 1.
    """
    own = target - np.logaddexp.reduce(references, 0) + math.log(len(references))
    others = population - np.logaddexp.reduce(population_references, 0) + math.log(len(population_references))
    shares: Scores = np.searchsorted(np.sort(others), own, side="right") / len(others)
    # Rows that beat all of a small population are told apart by their own ratio.
    return shares + 1e-9 * np.argsort(np.argsort(own))


def lira(target: Scores, references: Scores, members: npt.NDArray[np.bool_]) -> Scores:
    """Log-ratio of normal densities of log-odds with and without the row, (n,), one variance for all rows.

    Args:
        target: log-odds of the label under the model, (n,).
        references: (k, n).
        members: whether a reference was trained on the row, (k, n).

    Carlini et al. 2022, section 5, with the global variance of section 6 for few references.
    """
    with_row = _means(references, members)
    without = _means(references, ~members)
    residuals = np.where(members, references - with_row, references - without)
    spread = max(float(residuals.std()), 1e-6)
    scores: Scores = ((target - without) ** 2 - (target - with_row) ** 2) / (2 * spread**2)
    return scores


def _means(values: Scores, mask: Mask) -> Scores:
    counts = mask.sum(0)
    found: Scores = np.where(counts > 0, (values * mask).sum(0) / np.maximum(counts, 1), values.mean(0))
    return found
