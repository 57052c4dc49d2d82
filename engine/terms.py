"""The public numbers of a private run, fixed before a row is read. Knows no instruction and draws nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine import accounting
from engine.accounting import PrivacyEvent
from engine.errors import Fault

DEFAULT_EPSILON = 8.0
LEAST_NOISE = 0.3  # below it no figure is worth the name
_MOST_RATE = 0.5
_MARKS = 20  # how often epsilon is worked out on the way


class UnfitTerms(ValueError):
    """Numbers that give no guarantee; the pointers of `faults` are relative to the instruction."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.detail for fault in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Terms:
    """The rate of a Poisson draw, the noise multiplier, delta, the planned steps, the fixed divisor."""

    rate: float
    sigma: float
    delta: float
    steps: int
    expected_batch: int

    @property
    def plan(self) -> PrivacyEvent:
        """All releases."""
        return PrivacyEvent(mechanism="gaussian", q=self.rate, sigma=self.sigma, count=self.steps, sampling="poisson")

    def spent_by(self, draws: int) -> float:
        """Epsilon after so many draws, worked out at a few marks.

        Between two marks the next one is told: never less than what was spent, and exact at the end.
        """
        stride = math.ceil(self.steps / _MARKS)
        mark = max(draws, min(self.steps, math.ceil(draws / stride) * stride))
        return accounting.epsilon([self.plan.times(mark)], self.delta, quick=mark < self.steps)


def terms_of(
    rows: int,
    expected_batch: int,
    steps: int,
    *,
    epsilon: float | None,
    noise_multiplier: float | None,
    delta: float | None,
) -> Terms:
    """The numbers of a run over so many nominal units; `noise_multiplier` None: what `epsilon` needs (None: 8).

    Raises:
        UnfitTerms: with every fault found.
    """
    rate, delta = expected_batch / max(rows, 1), delta or accounting.default_delta(rows)
    faults = []
    if rate > _MOST_RATE:
        detail = f"a draw of {expected_batch} of {rows} rows is more than half of them"
        faults.append(Fault("/expected_batch", "rate_too_high", detail, f"send {max(1, rows // 2)} or less"))
    if delta * rows >= 1:
        detail = f"at a delta of {delta:g} whole rows may leak: it must be below 1/N, which is {1 / rows:g}"
        faults.append(Fault("/delta", "delta_too_large", detail, "send a smaller delta, or leave it out"))
    if not faults and noise_multiplier is None:
        target = epsilon or DEFAULT_EPSILON
        try:
            # More noise than asked for is no harm; less than this would be none to speak of.
            noise_multiplier = max(LEAST_NOISE, accounting.noise_multiplier(target, delta, rate, steps))
        except ValueError as error:
            faults.append(Fault("/epsilon", "no_noise", str(error), "raise epsilon, or lower steps or expected_batch"))
    if faults or noise_multiplier is None:
        raise UnfitTerms(faults)
    return Terms(rate, noise_multiplier, delta, steps, expected_batch)
