"""Scores and their intervals, from labels alone. Knows neither models nor files.

Every function takes (n,) integer arrays: `truth`, and answers as class indices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from engine.randomness import generator

Labels = npt.NDArray[np.int64]
_RESAMPLES = 1000


@dataclass(frozen=True)
class Measured:
    """A figure, its interval at some confidence, and the rows that it rests on."""

    value: float
    low: float
    high: float
    n: int


def accuracy(truth: Labels, answers: Labels) -> float:
    """Share of right answers."""
    return float((truth == answers).mean())


def recalls(truth: Labels, answers: Labels, classes: int) -> list[float | None]:
    """Share of each class's rows that were found; None where it has no rows."""
    return [float((answers[truth == k] == k).mean()) if (truth == k).any() else None for k in range(classes)]


def macro_f1(truth: Labels, answers: Labels) -> float:
    """The mean F1 over the classes that occur in either array, as scikit-learn has it."""
    return _macro_f1(truth, answers, int(max(truth.max(), answers.max())) + 1)


def _macro_f1(truth: Labels, answers: Labels, classes: int) -> float:
    right = np.bincount(truth[truth == answers], minlength=classes)
    total = np.bincount(truth, minlength=classes) + np.bincount(answers, minlength=classes)
    occurs = total > 0
    return float((2 * right[occurs] / total[occurs]).mean())


SCORES: dict[str, Callable[[Labels, Labels], float]] = {"accuracy": accuracy, "macro_f1": macro_f1}


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


def score(metric: str, answers: Labels, truth: Labels, classes: int) -> float:
    """A metric of answers among `classes` classes."""
    del classes  # no metric here needs more than the classes that occur
    return SCORES[metric](truth, answers)


def measured(metric: str, truth: Labels, answers: Labels, seed: int, confidence: float = 0.95) -> Measured:
    """A metric with its interval: Wilson's for accuracy, else a seeded bootstrap over rows that is no narrower."""
    value, n = SCORES[metric](truth, answers), len(truth)
    shares = Measured(accuracy(truth, answers), *wilson(int((truth == answers).sum()), n, confidence), n)
    if metric == "accuracy":
        return shares
    drawn = _bootstrap(n, seed, lambda rows: SCORES[metric](truth[rows], answers[rows]))
    low, high = _no_surer(value, _ends(drawn, confidence), shares)
    return Measured(value, max(0.0, low), min(1.0, high), n)


def loss(
    metric: str, truth: Labels, reference: Labels, exported: Labels, seed: int, confidence: float = 0.95
) -> Measured:
    """What was lost, reference minus exported, with a paired interval: both answered the same rows."""
    score_of, n = SCORES[metric], len(truth)
    value = score_of(truth, reference) - score_of(truth, exported)
    was, now = reference == truth, exported == truth
    ends = paired_difference(int((was & ~now).sum()), int((now & ~was).sum()), n, confidence)
    shares = Measured(float(was.mean() - now.mean()), *ends, n)
    if metric == "accuracy":
        return shares
    drawn = _bootstrap(
        n, seed, lambda rows: score_of(truth[rows], reference[rows]) - score_of(truth[rows], exported[rows])
    )
    low, high = _no_surer(value, _ends(drawn, confidence), shares)
    return Measured(value, max(-1.0, low), min(1.0, high), n)


def agreement(reference: Labels, exported: Labels, confidence: float = 0.95) -> Measured:
    """Share of rows that both answer alike."""
    same = int((reference == exported).sum())
    return Measured(same / len(reference), *wilson(same, len(reference), confidence), len(reference))


def median(values: npt.NDArray[np.float64], confidence: float = 0.95) -> Measured:
    """The median with the interval of the order statistics: free of any distribution."""
    ordered, n = np.sort(values), len(values)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * np.sqrt(n) / 2
    low, high = max(0, int(np.floor(n / 2 - half))), min(n - 1, int(np.ceil(n / 2 + half)))
    return Measured(float(np.median(ordered)), float(ordered[low]), float(ordered[high]), n)


def _bootstrap(n: int, seed: int, figure: Callable[[Labels], float]) -> npt.NDArray[np.float64]:
    drawn = generator(seed, "bootstrap")
    return np.array([figure(drawn.integers(0, n, n)) for _ in range(_RESAMPLES)])


def _ends(drawn: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _no_surer(value: float, ends: tuple[float, float], shares: Measured) -> tuple[float, float]:
    """Ends that lie as far from the value as those of accuracy on the same rows, at least.

    A bootstrap claims certainty where no row that it can draw differs: ten faultless rows would prove a score of 1.
    """
    below, above = shares.value - shares.low, shares.high - shares.value
    return min(ends[0], value - below), max(ends[1], value + above)
