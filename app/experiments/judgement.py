"""What many pairwise ballots come to: strengths by Bradley and Terry, and how far raters agree. Numpy alone.

Knows neither experiments nor who the raters are.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
FIRST, SECOND, BOTH, NEITHER = "first", "second", "both", "neither"
RESAMPLES = 1_000
_ROUNDS, _NEAR = 500, 1e-9


@dataclass(frozen=True)
class Vote:
    """One ballot: which of two arms was preferred on an item, or both, or neither."""

    item: int
    first: int
    second: int
    preferred: str


@dataclass(frozen=True)
class Strength:
    """A share of all strengths, which add up to 1, with its 95 % interval."""

    value: float
    low: float
    high: float


def wins_of(votes: Sequence[Vote], arms: int) -> Array:
    """(arms, arms): how often the row's arm was preferred to the column's; `both` and `neither` are half a win each."""
    found = np.zeros((arms, arms))
    for one in votes:
        share = {FIRST: 1.0, SECOND: 0.0}.get(one.preferred, 0.5)
        found[one.first, one.second] += share
        found[one.second, one.first] += 1 - share
    return found


def bradley_terry(wins: Array, begun: Array | float = 0.5) -> Array:
    """Strengths (..., arms) that add up to 1, from wins (..., arms, arms): i beats j with the chance i / (i + j).

    Each arm of a pair that was ever judged begins with `begun` wins over the other, so that no strength is zero or
    without end. By minorisation and maximisation. Source: Hunter 2004, section 3.
    """
    judged = wins + np.swapaxes(wins, -1, -2) > 0
    wins = wins + np.where(judged, begun, 0.0)
    won, played = wins.sum(axis=-1), wins + np.swapaxes(wins, -1, -2)
    strengths = np.full(won.shape, 1 / wins.shape[-1])
    for _ in range(_ROUNDS):
        pairs = strengths[..., :, None] + strengths[..., None, :]
        weight = (played / pairs).sum(axis=-1)
        new = np.where(weight > 0, won / np.where(weight > 0, weight, 1.0), strengths)
        new = new / new.sum(axis=-1, keepdims=True)
        moved, strengths = float(np.abs(new - strengths).max()), new
        if moved < _NEAR:
            break
    return strengths


def strengths_of(votes: Sequence[Vote], arms: int, key: int = 0) -> list[Strength]:
    """Strengths with intervals by a Bayesian bootstrap (Rubin 1981) over items, each with all of its ballots: several
    raters of one item do not make it several items.

    The wins that every pair begins with are drawn along. For two arms and one ballot an item that is the posterior of a
    share under Jeffreys' prior, which claims no certainty where all ballots are one.
    """
    items = sorted({one.item for one in votes})
    by_item = np.stack([wins_of([one for one in votes if one.item == item], arms) for item in items])
    generator = np.random.default_rng([key, len(items)])
    weights = generator.standard_gamma(1.0, (RESAMPLES, len(items)))
    begun = generator.standard_gamma(0.5, (RESAMPLES, arms, arms))
    drawn = bradley_terry(np.tensordot(weights, by_item, axes=1), begun)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    values = bradley_terry(by_item.sum(axis=0))
    return [Strength(*map(float, one)) for one in zip(values, low, high, strict=True)]


def strengths_by_arm(votes: Sequence[Vote]) -> dict[int, Strength]:
    """Strengths of the arms that ballots link, directly or by way of others, by the arm's number.

    How an arm compares that no ballot links to these, nobody has said. Of several groups it is the one of most ballots.
    """
    groups: list[set[int]] = []
    for first, second in sorted({(one.first, one.second) for one in votes}):
        met = [group for group in groups if {first, second} & group]
        groups = [*(group for group in groups if group not in met), {first, second}.union(*met)]
    linked = max(groups, key=lambda group: sum(one.first in group for one in votes))
    place = {arm: number for number, arm in enumerate(sorted(linked))}
    kept = [replace(one, first=place[one.first], second=place[one.second]) for one in votes if one.first in place]
    return dict(zip(place, strengths_of(kept, len(place)), strict=True))


def alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal data: 1 where all agree, 0 where they agree as often as by chance.

    None where no unit has two values, or all values are one, so that there is nothing to agree on.

    Args:
        units: the values that raters gave to each unit; missing ones are left out.

    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability, section C.
    """
    told = [unit for unit in units if len(unit) > 1]
    values = {value: number for number, value in enumerate(dict.fromkeys(value for unit in told for value in unit))}
    together = np.zeros((len(values), len(values)))
    for unit in told:
        counts = np.bincount([values[value] for value in unit], minlength=len(values)).astype(np.float64)
        together += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    each = together.sum(axis=1)
    n = each.sum()
    by_chance = n * n - (each * each).sum()
    if by_chance <= 0:
        return None
    return float(1 - (n - 1) * (n - np.trace(together)) / by_chance)


def agreement(votes: Sequence[Vote]) -> float | None:
    """Krippendorff's alpha over what was judged: an item and two arms is a unit, what was preferred its value."""
    units: dict[tuple[int, int, int], list[str]] = {}
    for one in votes:
        units.setdefault((one.item, one.first, one.second), []).append(one.preferred)
    return alpha(list(units.values()))
