"""Scores and their intervals. Knows neither models nor files nor tasks.

A score is a function of `figures` (n, columns): what a task found for each row. Where column 0 is 1 for a right answer
and 0 for a wrong one the metric says so, and its intervals are then no surer than a share's on as many rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from engine.randomness import generator

Labels = npt.NDArray[np.int64]
Figures = npt.NDArray[np.float64]
_RESAMPLES = 1000


@dataclass(frozen=True)
class Measured:
    """A figure, its interval at some confidence, and the rows that it rests on."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Metric:
    """How rows' figures become one score.

    `counted`: column 0 tells right from wrong; `share`: the score is the mean of that column and nothing else.
    """

    value: Callable[[Figures], float]
    counted: bool = False
    share: bool = False
    more_is_better: bool = True


def class_figures(truth: Labels, answers: Labels) -> Figures:
    """(n, 3): whether the row is right, its class, the answered class."""
    return np.stack([truth == answers, truth, answers], axis=1).astype(np.float64)


def _share(figures: Figures) -> float:
    return float(figures[:, 0].mean())


def _f1_of(figures: Figures) -> float:
    return macro_f1(figures[:, 1].astype(np.int64), figures[:, 2].astype(np.int64))


def _bits_per_byte(figures: Figures) -> float:
    """From (n, 2): nats and bytes of each row."""
    return float(figures[:, 0].sum() / np.log(2) / max(1.0, figures[:, 1].sum()))


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_share, counted=True, share=True),
    "macro_f1": Metric(_f1_of, counted=True),
    "bits_per_byte": Metric(_bits_per_byte, more_is_better=False),
    "recall_at_1": Metric(_share, counted=True, share=True),
    "recall_at_5": Metric(_share, counted=True, share=True),
    "recall_at_10": Metric(_share, counted=True, share=True),
}
"""Every metric that a job may be judged by; which of them a task has, the task says."""


def accuracy(truth: Labels, answers: Labels) -> float:
    """Share of right answers."""
    return float((truth == answers).mean())


def recalls(truth: Labels, answers: Labels, classes: int) -> list[float | None]:
    """Share of each class's rows that were found; None where it has no rows."""
    return [float((answers[truth == k] == k).mean()) if (truth == k).any() else None for k in range(classes)]


def macro_f1(truth: Labels, answers: Labels) -> float:
    """The mean F1 over the classes that occur in either array, as scikit-learn has it."""
    classes = int(max(truth.max(), answers.max())) + 1
    right = np.bincount(truth[truth == answers], minlength=classes)
    total = np.bincount(truth, minlength=classes) + np.bincount(answers, minlength=classes)
    occurs = total > 0
    return float((2 * right[occurs] / total[occurs]).mean())


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share, sound at 0 and 1 and for small n (Wilson 1927)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def paired_difference(first_only: int, second_only: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a difference of two shares on the same n rows: of rows that one alone has right.

    Wald after half a row is added to each of the four cells, which does not claim certainty where nothing differed
    (Agresti and Min 2005, section 3).
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    first, second, rows = first_only + 0.5, second_only + 0.5, n + 2
    difference = (first - second) / rows
    half = z * np.sqrt(first + second - (first - second) ** 2 / rows) / rows
    return max(-1.0, float(difference - half)), min(1.0, float(difference + half))


def measured(metric: str, figures: Figures, seed: int, confidence: float = 0.95) -> Measured:
    """A metric of some rows with its interval: Wilson's for a share, else a seeded bootstrap over rows."""
    how, n = METRICS[metric], len(figures)
    value = how.value(figures)
    if how.share:
        return _share_of(figures[:, 0], confidence)
    ends = _ends(_bootstrap(n, seed, lambda rows: how.value(figures[rows])), confidence)
    if how.counted:
        low, high = _no_surer(value, ends, _share_of(figures[:, 0], confidence), _of_classes(figures, confidence))
        return Measured(value, max(0.0, low), min(1.0, high), n)
    low, high = _of_few(value, ends, n, confidence, value)
    return Measured(value, max(0.0, low), high, n)  # no metric lies below zero


def interval(figures: Figures, value: Callable[[Figures], float], seed: int = 0) -> list[float]:
    """The 95 % interval of any figure of some rows, by a seeded bootstrap over them, rounded as in receipts."""
    n, whole = len(figures), value(figures)
    drawn = _bootstrap(n, seed, lambda rows: value(figures[rows]))
    return [rounded(end) for end in _of_few(whole, _ends(drawn, 0.95), n, 0.95, whole)]


def loss(metric: str, reference: Figures, exported: Figures, seed: int, confidence: float = 0.95) -> Measured:
    """What was lost, above 0 where the reference is better, with a paired interval: both answered the same rows."""
    how, n = METRICS[metric], len(reference)
    sign = 1.0 if how.more_is_better else -1.0

    def lost(rows: Labels | slice) -> float:
        return sign * (how.value(reference[rows]) - how.value(exported[rows]))

    value = lost(slice(None))
    if not how.counted:
        ends = _ends(_bootstrap(n, seed, lost), confidence)
        return Measured(value, *_of_few(value, ends, n, confidence, how.value(reference)), n)
    was, now = reference[:, 0] == 1, exported[:, 0] == 1
    shares_ends = paired_difference(int((was & ~now).sum()), int((now & ~was).sum()), n, confidence)
    shares = Measured(float(was.mean() - now.mean()), *shares_ends, n)
    if how.share:
        return shares
    by_class = _lost_by_class(reference, was, now, confidence)
    low, high = _no_surer(value, _ends(_bootstrap(n, seed, lost), confidence), shares, by_class)
    return Measured(value, max(-1.0, low), min(1.0, high), n)


def agreement(same: npt.NDArray[np.bool_], confidence: float = 0.95) -> Measured:
    """Share of rows that two models answer alike; (n,)."""
    return _share_of(same, confidence)


def _share_of(column: npt.NDArray[np.generic], confidence: float) -> Measured:
    right, n = int(column.sum()), len(column)
    return Measured(right / n, *wilson(right, n, confidence), n)


def median(values: npt.NDArray[np.float64], confidence: float = 0.95) -> Measured:
    """The median with the interval of the order statistics: free of any distribution."""
    ordered, n = np.sort(values), len(values)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * np.sqrt(n) / 2
    low, high = max(0, int(np.floor(n / 2 - half))), min(n - 1, int(np.ceil(n / 2 + half)))
    return Measured(float(np.median(ordered)), float(ordered[low]), float(ordered[high]), n)


def rounds_needed(confidence: float) -> int:
    """Rounds of a race without which not even the shortest and the longest of all pairs hold the median so surely."""
    return 2 * math.ceil(math.log2(2 / (1 - confidence)))


def race_ratio(longer: Sequence[float], than: Sequence[float], confidence: float = 0.95) -> Measured:
    """How many times as long one took as the other, over rounds whose order is swapped from each to the next.

    Whoever comes second in a round finds the caches full of the other, so of small models the ratios of single rounds
    have two humps and their median is either's by luck. Two rounds together have both orders; `n` counts those.
    """
    pairs = len(longer) // 2
    spent = [np.asarray(one, np.float64)[: 2 * pairs].reshape(pairs, 2).sum(axis=1) for one in (longer, than)]
    return median(spent[0] / spent[1], confidence)


def rounded(value: float) -> float:
    """To six digits, and no minus zero: as figures stand in receipts."""
    return round(value, 6) + 0.0


def _bootstrap(n: int, seed: int, figure: Callable[[Labels], float]) -> npt.NDArray[np.float64]:
    drawn = generator(seed, "bootstrap")
    return np.array([figure(drawn.integers(0, n, n)) for _ in range(_RESAMPLES)])


def _ends(drawn: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _of_few(value: float, ends: tuple[float, float], n: int, confidence: float, scale: float) -> tuple[float, float]:
    """The ends of a bootstrap, which are too near on few rows, moved out as Student's law has it for a mean.

    Hesterberg 2015, section 3.4. One row has no spread: then the figure may be off by all of `scale`.
    """
    if n < 2:
        return value - abs(scale), value + abs(scale)
    tail = 0.5 + confidence / 2
    factor = float(stdtrit(n - 1, tail)) / NormalDist().inv_cdf(tail) * float(np.sqrt(n / (n - 1)))
    return value - factor * (value - ends[0]), value + factor * (ends[1] - value)


def _no_surer(
    value: float, ends: tuple[float, float], shares: Measured, classes: tuple[float, float]
) -> tuple[float, float]:
    """Ends that lie as far from the value as those of accuracy on the same rows, and as its classes' own, at least.

    A bootstrap claims certainty where no row that it can draw differs: ten faultless rows would prove a score of 1, and
    so would the four of a rare class, which weighs in macro-F1 as much as any.
    """
    below, above = shares.value - shares.low, shares.high - shares.value
    return min(ends[0], value - max(below, classes[0])), max(ends[1], value + max(above, classes[1]))


def _of_classes(figures: Figures, confidence: float) -> tuple[float, float]:
    """How far macro-F1 may lie below and above by what each class's own rows leave open.

    The rows that are of a class or answered as it are right by a share J, and its F1 is 2 J / (1 + J); Wilson's ends of
    the classes are joined as those of independent figures (Zou and Donner 2008).
    """
    truth, answers = figures[:, 1], figures[:, 2]
    found = []
    for label in np.union1d(truth, answers):
        either, both = (truth == label) | (answers == label), (truth == label) & (answers == label)
        one = _share_of(both[either], confidence)
        low, middle, high = (2 * share / (1 + share) for share in (one.low, one.value, one.high))
        found.append((middle - low, high - middle))
    return _joined(found)


def _lost_by_class(
    reference: Figures, was: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_], confidence: float
) -> tuple[float, float]:
    """The same of a loss: how far each class's difference in recall may lie from what was seen."""
    truth, found = reference[:, 1], []
    for label in np.unique(truth):
        before, after = was[truth == label], now[truth == label]
        n, value = len(before), float(before.mean() - after.mean())
        low, high = paired_difference(int((before & ~after).sum()), int((after & ~before).sum()), n, confidence)
        found.append((max(0.0, value - low), max(0.0, high - value)))
    return _joined(found)


def _joined(distances: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Below and above, of the mean of figures with these distances to their own ends."""
    below, above = np.sqrt(np.square(np.array(distances)).sum(axis=0)) / len(distances)
    return float(below), float(above)
