"""The public numbers of a private run, fixed before a row is read. Knows no instruction and draws nothing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine import accounting
from engine.accounting import PrivacyEvent
from engine.errors import Fault, InvalidPlan
from engine.guard import hides_test_rows

if TYPE_CHECKING:  # a spec holds instructions, which ask here: a circle of types only
    from engine.spec import Spec

DEFAULT_EPSILON = 8.0
_MOST_RATE = 0.5
_APART = "give test rows that are a data set of their own"
_MARKS = 20  # how often epsilon is worked out on the way


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
    units: int,
    expected_batch: int,
    rate: float,
    steps: int,
    *,
    epsilon: float | None,
    noise_multiplier: float | None,
    delta: float | None,
    at: str,
) -> Terms:
    """The numbers of a run over so many nominal units; `noise_multiplier` None: what `epsilon` needs (None: 8).

    Args:
        units: records or clients.
        expected_batch: units a draw on average.
        rate: with which each is drawn.
        steps: draws.
        epsilon: the guarantee that is asked for.
        noise_multiplier: noise over clipping bound, instead of epsilon.
        delta: None: the units to the -1.1.
        at: the instruction's JSON Pointer, for faults.

    Raises:
        InvalidPlan: where they give no guarantee, with every fault found.
    """
    delta, faults = delta or accounting.default_delta(units), []
    if rate > _MOST_RATE:
        detail = f"a draw of {expected_batch} of {units} rows is more than half of them"
        faults.append(Fault(f"{at}/expected_batch", "rate_too_high", detail, f"send {max(1, units // 2)} or less"))
    if delta * units >= 1:
        detail = f"at a delta of {delta:g} all of one of {units} may leak: it must be below {1 / units:g}"
        faults.append(Fault(f"{at}/delta", "delta_too_large", detail, "send a smaller delta, or leave it out"))
    if not faults and noise_multiplier is None:
        target = epsilon or DEFAULT_EPSILON
        try:
            noise_multiplier = accounting.noise_multiplier(target, delta, rate, steps)
        except ValueError as error:
            faults.append(Fault(f"{at}/epsilon", "no_noise", str(error), "raise epsilon, or lower steps or the draw"))
    if faults or noise_multiplier is None:
        raise InvalidPlan(faults)
    return Terms(rate, noise_multiplier, delta, steps, expected_batch)


def place_in(spec: "Spec", name: str) -> str:
    """The JSON Pointer of the instruction of this name."""
    return next(f"/instructions/{i}" for i, one in enumerate(spec.instructions) if one.name == name)


def choice_faults(spec: "Spec", epsilon: float | None, noise_multiplier: float | None) -> Iterator[Fault]:
    """What no private run may choose, whatever its unit: two owners of the noise, private figures, raw rows, a twin."""
    if epsilon is not None and noise_multiplier is not None:
        yield Fault("/epsilon", "one_of_two", "epsilon follows from noise_multiplier", "give one of the two")
    ceiling, wanted = spec.limits.max_epsilon, epsilon or DEFAULT_EPSILON
    if ceiling is not None and noise_multiplier is None and wanted > ceiling:
        detail = f"epsilon is {wanted:g}, and limits.max_epsilon {ceiling:g}"
        yield Fault("/epsilon", "limit_missed", detail, f"set epsilon to {ceiling:g} or less")
    if spec.training.keep != "last":
        detail = "the best of several states is chosen by plain figures of private rows"
        yield Fault("", "private_choice", detail, 'leave training.keep at "last"')
    if spec.include_inputs and hides_test_rows(spec):
        detail = "rows of the data set would stand in the receipt as they are"
        yield Fault("", "rows_in_the_receipt", detail, f"leave include_inputs out, or {_APART}")
    if spec.answers is True and hides_test_rows(spec):
        detail = "whoever has a row could look up in answers.jsonl whether it scored the model, and its label"
        yield Fault("", "rows_in_the_answers", detail, f"leave answers out, or {_APART}")
    if spec.compare != "trained":
        detail = "the untreated twin would train on the private rows once more"
        yield Fault("", "second_training", detail, 'leave compare at "trained"')
