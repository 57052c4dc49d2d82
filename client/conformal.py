"""From scores of clean rows to p-values, thresholds and verdicts. Knows neither models nor files.

A p-value is a rank among clean rows, so it holds whatever the scores' distribution: on traffic like those rows at most
a share `rate` of honest inputs is flagged at `rate` (conformal prediction; Vovk et al. 2005, section 2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Combine = Literal["fisher", "max"]

_SHIFTED = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Raw scores of clean rows that nothing was fitted on, (rows, signals), and how signals are combined.

    Scores are compared as fp32, as they are stored: a calibration row that comes again meets itself.
    """

    signals: tuple[str, ...]
    raw: npt.NDArray[np.float32]
    combine: Combine = "fisher"

    @property
    def rows(self) -> int:
        """How many clean rows there are."""
        return len(self.raw)

    def of(self, signals: Sequence[str]) -> "Calibration":
        """The same for some of the signals."""
        columns = [self.signals.index(name) for name in signals]
        return Calibration(tuple(signals), self.raw[:, columns], self.combine)

    @cached_property
    def _sorted(self) -> npt.NDArray[np.float32]:
        return np.sort(self.raw, axis=0)

    @cached_property
    def _sums(self) -> Scores:
        """The combined scores of the clean rows, ascending."""
        return np.sort(self._combined(self._above(self.raw) / (self.rows + 1)))

    def signal_p_values(self, raw: npt.NDArray[np.floating]) -> Scores:
        """The p-value of each signal, (n, signals)."""
        return (1 + self._above(raw)) / (self.rows + 1)

    def scores(self, raw: npt.NDArray[np.floating]) -> Scores:
        """The combined score of each input, (n,): the higher, the more suspicious."""
        return self._combined(self.signal_p_values(raw))

    def p_values(self, raw: npt.NDArray[np.floating]) -> Scores:
        """The p-value of each input, (n,): its combined score's rank among those of the clean rows.

        The combined score is calibrated again, since signals are dependent and a chi-square table is then wrong. A
        clean row's own signals are ranked among m rows and not m + 1, which makes its score no smaller than it would
        be with the new input among them: the p-value is at worst too large.
        """
        below = np.searchsorted(self._sums, self.scores(raw), side="left")
        found: Scores = (1 + self.rows - below) / (self.rows + 1)
        return found

    def threshold(self, rate: float) -> float:
        """The score that a flagged input exceeds: the ceil((1 - rate)(m + 1))-th smallest of m clean ones.

        Infinite where `rate` is below 1 / (m + 1), which is the smallest that m rows support.
        """
        flagged = math.floor(rate * (self.rows + 1) + 1e-9)
        return float(self._sums[self.rows - flagged]) if flagged else math.inf

    def shifted(self, flagged: int, n: int, rate: float) -> bool:
        """Whether so many flags among n honest inputs like the clean rows have a probability below 1e-6.

        The luck of the calibration rows is taken into account: their threshold's true rate follows a beta law.
        """
        above = max(1, math.floor(rate * (self.rows + 1) + 1e-9))
        if not n or flagged / n <= rate:
            return False
        a, b = above, self.rows + 1 - above
        logs = [_log_choose(n, x) + _log_beta(x + a, n - x + b) - _log_beta(a, b) for x in range(flagged, n + 1)]
        return sum(map(math.exp, logs)) < _SHIFTED

    def _above(self, raw: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """How many clean rows score at least as high, (n, signals)."""
        given = np.asarray(raw, dtype=np.float32)
        below = [np.searchsorted(self._sorted[:, i], given[:, i], side="left") for i in range(len(self.signals))]
        return self.rows - np.stack(below, axis=1).astype(np.int64)

    def _combined(self, p_values: Scores) -> Scores:
        """Fisher's sum, or the single most telling signal."""
        surprises = -2 * np.log(p_values)
        # Rounded, since equal sums must be equal whatever the order of the signals.
        combined: Scores = np.round(surprises.sum(axis=1) if self.combine == "fisher" else surprises.max(axis=1), 9)
        return combined


def discoveries(p_values: Scores, rate: float) -> npt.NDArray[np.bool_]:
    """Which inputs of a batch to flag so that at most a share `rate` of the flags is false, (n,).

    Benjamini and Hochberg 1995. Unlike a p-value, the verdict depends on the whole batch.
    """
    n = len(p_values)
    ordered = np.sort(p_values)
    passing = np.flatnonzero(ordered <= rate * np.arange(1, n + 1) / max(1, n))
    flagged: npt.NDArray[np.bool_] = p_values <= (ordered[passing[-1]] if len(passing) else -1.0)
    return flagged


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def rows_needed(rate: float) -> int:
    """Clean rows that a rate needs: with 20 / rate of them the threshold rests on about 20 rows above it."""
    return math.ceil(20 / rate - 1e-9)


def least_rate(rows: int) -> float:
    """The smallest rate that so many clean rows hold, rounded up: one rounded down would be refused again."""
    return math.ceil(20_000 / rows - 1e-9) / 1000
