"""How sure a difference between two arms is: intervals, a permutation test, Holm's correction, a verdict, seeds that
would decide. Arithmetic alone; knows neither experiments nor files.

Every arm answers the same items (test rows) once for each seed, so its results are a table, seeds by items, and two
arms' tables are paired cell by cell. Items and seeds both are samples: of the rows that a model will meet, and of the
models that a training could have given. Decision 21 says why it is done so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

Array: TypeAlias = npt.NDArray[np.float64]
Whole: TypeAlias = npt.NDArray[np.int64]
Table: TypeAlias = Array | sparse.csr_array
"""Items by columns; sparse where an item has a number in few of many columns."""
OfSums: TypeAlias = Callable[[Array], Array]
"""From sums over items, (..., m), to scores, (...)."""
Verdict = Literal["better", "worse", "no_difference", "undecided"]

RESAMPLES, PERMUTATIONS, LEVEL = 2_000, 4_999, 0.05
MOST_SEEDS = 1_000
"""So many seeds are looked at for an answer; what takes more counts as never."""
_EXACT_ITEMS = 12
_CELLS = 1 << 20
"""Of a table of draws by items, of which there are a few at a time."""
_Z = NormalDist().inv_cdf(1 - LEVEL / 2)


@dataclass(frozen=True)
class Sampled:
    """A figure by seed, (seeds,), and what it would have been on resampled items, (resamples, seeds).

    `unseen`: the standard deviation that is granted to what no resample can show, such as a first wrong answer.
    """

    by_seed: Array
    drawn: Array
    unseen: float = 0.0

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(self.by_seed.mean())

    def less(self, other: "Sampled", unseen: float) -> "Sampled":
        """The paired difference: resample by resample and seed by seed."""
        return Sampled(self.by_seed - other.by_seed, self.drawn - other.drawn, unseen)


@dataclass(frozen=True)
class Components:
    """Variances of a mean over seeds: of the items, of seeds on top of it a seed, of the two together a seed.

    With s seeds the mean has the variance `items + (seeds + mixed) / s`.
    """

    items: float
    seeds: float
    mixed: float


def sample(
    parts: Sequence[Table], weights: Whole, of: OfSums, key: int, unseen: float = 0.0, resamples: int = RESAMPLES
) -> Sampled:
    """A score of one arm with its resamples; equal keys and weights draw the same items.

    Args:
        parts: (items, m) for each seed, what is summed over the items.
        weights: (items,), how many items are like each of these in all arms (`alike`); ones where each stands alone.
        of: from sums to scores.
        key: of the draws.
        unseen: as of `Sampled`.
        resamples: how many.
    """
    items, width = parts[0].shape
    columns, seeds = _side_by_side(parts), len(parts)
    generator, total, found = np.random.default_rng([key, items]), int(weights.sum()), []
    chunk = max(1, _CELLS // total)
    for start in range(0, resamples, chunk):
        counts = _counts(generator, min(chunk, resamples - start), weights, total)
        found.append(of(_sums(counts, columns).reshape(len(counts), seeds, width)))
    return Sampled(of((weights @ columns).reshape(seeds, width)), np.concatenate(found), unseen)


def _side_by_side(parts: Sequence[Table]) -> Table:
    return sparse.hstack(parts, format="csr") if sparse.issparse(parts[0]) else np.hstack(parts)


def _sums(counts: Whole, columns: Table) -> Array:
    """(rows, columns) of sums over the items, each taken so often; whole numbers stay whole."""
    found: Array = counts.astype(columns.dtype) @ columns
    return found


def alike(figures: npt.NDArray[np.number[Any]]) -> tuple[Whole, Whole]:
    """Items whose figures, (items, k), are equal, put together: the number of one of each kind, and how many they are.

    To draw from kinds by their number is to draw from the items, and far less work where rows are right or wrong.
    """
    _, first, counts = np.unique(figures, axis=0, return_index=True, return_counts=True)
    return first.astype(np.int64), counts.astype(np.int64)


def _counts(generator: np.random.Generator, rows: int, weights: Whole, total: int) -> Whole:
    """(rows, items): how often each is in a sample of all with replacement."""
    items = len(weights)
    if total > 4 * items:
        return generator.multinomial(total, weights / total, rows)
    drawn = np.repeat(np.arange(items), weights)[generator.integers(0, total, (rows, total))]
    cells = (drawn + np.arange(rows)[:, None] * items).ravel()
    return np.bincount(cells, minlength=rows * items).reshape(rows, items).astype(np.int64)


def components(one: Sampled) -> Components:
    """The variances, by moments: what seeds differ by beyond what their items explain is the seeds' own.

    Needs two seeds at least.
    """
    seeds = one.drawn.shape[1]
    mean = one.drawn.mean(axis=1)
    mixed = float((one.drawn - mean[:, None]).var(axis=0).sum() / (seeds - 1))
    items = max(0.0, float(mean.var()) - mixed / seeds) + one.unseen**2
    return Components(items, max(0.0, float(one.by_seed.var(ddof=1)) - mixed), mixed)


def interval(one: Sampled, key: int) -> tuple[float, float]:
    """The 95 % interval of the mean: resampled items, and beside them a Student's t for what seeds differ by.

    Three seeds say little of how seeds differ, which a bootstrap of them would not admit: hence the t, with as many
    degrees of freedom as there are seeds less one. It covers all that they differ by, also what their items explain of
    it: to take that off first would leave nothing as often as not, and promise too much. A single seed says nothing of
    it, and the items stand alone.
    """
    seeds, generator = one.drawn.shape[1], np.random.default_rng([key, 1])
    n, drawn = len(one.drawn), one.drawn.mean(axis=1)
    if seeds > 1:
        # Of the draws the part that is no single seed's.
        shared = max(0.0, 1 - components(one).mixed / seeds / max(float(drawn.var()), np.finfo(float).tiny))
        drawn = drawn.mean() + (drawn - drawn.mean()) * np.sqrt(shared)
        drawn = drawn + generator.standard_t(seeds - 1, n) * np.sqrt(one.by_seed.var(ddof=1) / seeds)
    unseen = generator.standard_normal(n) * one.unseen
    low, high = np.quantile(drawn + unseen, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def permutation_p(treatment: Sequence[Table], baseline: Sequence[Table], of: OfSums, key: int) -> float:
    """How often a difference as large comes about where it makes no difference which arm gave an item's answers.

    What is permuted: an item's answers of both arms are exchanged, those of all seeds together, each item by itself.
    The statistic is the absolute difference of the scores, averaged over the seeds; for a mean over items that is the
    test by signs of the items' differences averaged over the seeds. Seeds are taken as they are. Where at most twelve
    items differ every exchange is counted; else 4,999 are drawn, and the one at hand is counted in.

    Args:
        treatment: (items, m) for each seed, as of `sample`.
        baseline: the same.
    """
    columns = _side_by_side([before - after for before, after in zip(baseline, treatment, strict=True)])
    columns = columns[abs(columns).sum(axis=1) > 0]
    items = columns.shape[0]
    if not items:
        return 1.0
    first, second = (np.stack([one.sum(axis=0) for one in arm]) for arm in (treatment, baseline))

    def statistic(flips: Whole, columns: Table) -> Array:
        moved = _sums(flips, columns).reshape(len(flips), *first.shape)
        found: Array = np.abs((of(first + moved) - of(second - moved)).mean(axis=1))
        return found

    observed = float(np.abs((of(first) - of(second)).mean())) * (1 - 1e-9) - 1e-12
    if items <= _EXACT_ITEMS:
        every = (np.arange(2**items)[:, None] >> np.arange(items)) & 1
        return float((statistic(every, columns) >= observed).mean())
    kinds, counts = alike(_in_few(columns) if sparse.issparse(columns) else columns)
    generator, reached, chunk = np.random.default_rng([key, 2]), 0, max(1, _CELLS // len(kinds))
    for start in range(0, PERMUTATIONS, chunk):
        flips = generator.binomial(counts, 0.5, (min(chunk, PERMUTATIONS - start), len(kinds)))
        reached += int((statistic(flips, columns[kinds]) >= observed).sum())
    return (1 + reached) / (1 + PERMUTATIONS)


def _in_few(columns: sparse.csr_array) -> npt.NDArray[np.number[Any]]:
    """(items, k), a few numbers an item, by which items are equal and in order as they are by all of their columns."""
    # Of each number where it stands, the first ones weighing most, under its sign; then what it is.
    columns.sort_indices()
    held = np.diff(columns.indptr)
    slots = np.arange(columns.nnz) - np.repeat(columns.indptr[:-1], held)
    found = np.zeros((columns.shape[0], held.max(), 2), columns.dtype)
    places = np.sign(columns.data) * (columns.shape[1] - columns.indices)
    found[np.repeat(np.arange(len(held)), held), slots] = np.stack([places, columns.data], axis=1)
    few: npt.NDArray[np.number[Any]] = found.reshape(len(held), -1)
    return few


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that none of several true null hypotheses is rejected but at the level (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def verdict(ends: tuple[float, float], p_adjusted: float, margin: float, *, more_is_better: bool) -> Verdict:
    """What can be said of a difference: none that matters where its interval lies within the margin, else which way
    where the interval leaves out zero and the adjusted p-value is at most .05."""
    low, high = ends
    if -margin < low and high < margin:
        return "no_difference"
    if p_adjusted > LEVEL or low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) is more_is_better else "worse"


def seeds_needed(one: Sampled, margin: float, comparisons: int) -> int | None:
    """How many further seeds would decide if the difference and the variances stay what they are; None: none would.

    Further seeds shrink what seeds add to the variance, and leave what the items add.
    """
    parts, now, value = components(one), one.drawn.shape[1], abs(one.value)
    seeds = np.arange(now + 1, MOST_SEEDS + 1)
    of_items, differ = parts.items + parts.mixed / seeds, parts.seeds + parts.mixed
    half = np.sqrt(_Z**2 * parts.items + t_quantile(seeds - 1) ** 2 * differ / seeds)
    strict = NormalDist().inv_cdf(1 - LEVEL / (2 * comparisons))
    decided = (value > half) & (value > strict * np.sqrt(of_items))
    decided |= value + half < margin
    return int(seeds[decided.argmax()]) - now if decided.any() else None


def t_quantile(degrees: npt.NDArray[np.int64]) -> Array:
    """The .975 quantile of Student's t, (n,); by Cornish and Fisher's expansion from 3 degrees on, exact below."""
    df, z = np.maximum(3, degrees).astype(np.float64), _Z
    terms = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    above = z + sum(term / df**power for power, term in enumerate(terms, 1))
    found: Array = np.select([degrees == 1, degrees == 2], [12.706205, 4.302653], above)
    return found


def pareto(points: Sequence[Sequence[float]]) -> list[int]:
    """The numbers of the points that no other is at least as good as in all, and better in some; more is better."""
    table = [np.asarray(one, np.float64) for one in points]
    return [
        i for i, one in enumerate(table) if not any((other >= one).all() and (other > one).any() for other in table)
    ]
