"""What noisy releases cost, counted by dp-accounting. Knows no instruction, no file and no database.

The flat schema that plans, journals and the ledger share, one object a group of equal steps, all numbers public:

    {"mechanism": "gaussian", "q": 0.037, "sigma": 1.0, "count": 81, "sampling": "poisson"}

`q` is the rate at which each unit is drawn (1 where nobody draws), `sigma` the noise multiplier: the standard deviation
over the clipping bound. The unit (a record, a client), the relation (one added or removed) and delta belong to whoever
keeps the account. Epsilon is never stored as the truth: it is worked out from events, rounded up, at a delta.

Two figures, and the larger is never hidden: `epsilon` by privacy loss distributions tells what was run; `admitted` by
Rényi divergence at one order that was fixed beforehand decides what may still run, since later jobs are chosen after
earlier models were seen (Feldman and Zrnic 2021).
"""

import importlib.metadata
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import brentq

from engine.lazy import dp_accounting, dp_accounting_pld, dp_accounting_rdp

if TYPE_CHECKING:  # a spec holds instructions, which plan events: a circle of types only
    from engine.spec import Spec

Sampling: TypeAlias = Literal["poisson", "none", "shuffled", "fixed_size"]

MOST_EPSILON = 1e6  # beyond it nothing is said any more
_COARSE = 1e-3  # of the losses' grid while a noise multiplier is looked for; it errs upwards
LEAST_NOISE = 0.3  # below it no figure is worth the name
LEAST_RATE = 1e-9  # of a draw: of so many rows or clients at most does anyone speak here
_MOST_NOISE = 1e4
# Where sums of privacy losses would cost more than what they say is worth, Rényi divergence, which errs upwards, does.
_FAR = 100.0  # an epsilon that protects nobody, however sharply it is worked out
_MOST_COUNT = 1_000_000
_MOST_POINTS = 1e7  # of the grid, over all groups: seconds, and some hundreds of megabytes
_FINE, _TOO_COARSE = 1e-4, 1e-2
_LEAST_DELTA = 1e-12  # below it the rounding of sums of floats is of its size
# Whole orders alone: at fractional ones the library's series may fail to converge, and says so in the log.
_ORDERS = tuple(float(order) for order in (*range(2, 33), 40, 48, 64, 96, 128, 192, 256, 512))
_PARTS = 100  # of one: what epsilon is rounded up to
_NOISE_PARTS = 10_000


class PrivacyEvent(BaseModel):
    """A group of `count` equal noisy releases.

    `mechanism` "none" is a release without noise, which no epsilon bounds; so is any `sampling` but the two that the
    accountant knows how to amplify.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: Literal["gaussian", "laplace", "none"] = "gaussian"
    q: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)
    sigma: float = Field(ge=0, allow_inf_nan=False)
    count: int = Field(default=1, ge=1)
    sampling: Sampling = "poisson"

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PrivacyEvent":
        """The event of JSON values; raises pydantic's ValidationError."""
        return cls.model_validate(dict(value))

    def times(self, count: int) -> "PrivacyEvent":
        """The same release, `count` times."""
        return self.model_copy(update={"count": count})


class PrivacyBudget(BaseModel):
    """`privacy_budget` of a job file: what the keeper of the account tells the run, which looks at it as it starts.

    Attributes:
        rows: the nominal number of training rows that the plan was made for; None: as counted in the files.
        shown_rows: what stands for the secret number of training rows in all that is published; None: it is no secret.
        epsilon: with `delta`, the most that the data may have spent after this run; None: no bound but the plan.
        order: the Rényi order that was fixed with the budget.
        spent: what others have spent on the data already.
        recorded: what the keeper has on record of this job's own draws; where the journal in the run's folder has
            fewer (another machine began the job), the record counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int | None = Field(default=None, ge=1)
    shown_rows: int | None = Field(default=None, ge=1)
    epsilon: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    delta: float | None = Field(default=None, gt=0, lt=1)
    order: float | None = Field(default=None, gt=1)
    spent: tuple[PrivacyEvent, ...] = ()
    recorded: tuple[PrivacyEvent, ...] = ()


def planned(spec: "Spec", rows: int) -> list[PrivacyEvent]:
    """The releases that a job plans on so many (nominal) training rows; nothing where it is not private."""
    return merged(event for one in spec.instructions for event in one.spends(spec, rows))


def merged(events: Iterable[PrivacyEvent]) -> list[PrivacyEvent]:
    """Equal releases in one group each, in the order of their first."""
    counts: dict[PrivacyEvent, int] = {}
    for event in events:
        one = event.times(1)
        counts[one] = counts.get(one, 0) + event.count
    return [event.times(count) for event, count in counts.items()]


def epsilon(events: Iterable[PrivacyEvent], delta: float, *, quick: bool = False) -> float:
    """Epsilon at `delta` of all events together, rounded up to two decimals; infinite where nothing bounds it.

    Privacy loss distributions with pessimistic estimates on dp-accounting's default grid; `quick`: on a coarser one,
    which errs upwards by a hundredth or so.
    """
    return rounded_up(_pld(_sorted(events), delta, _COARSE if quick else None))


def quoted(own: Sequence[PrivacyEvent], others: Sequence[PrivacyEvent], delta: float, order: float | None) -> float:
    """Epsilon at `delta` of one job's releases after those of others: the larger of both figures where there are any.

    Args:
        own: of the job.
        others: of other jobs on the same rows.
        order: the Rényi order of the budget; None: the best for an epsilon of 1.
    """
    together = [*others, *own]
    told = epsilon(together, delta)
    return max(told, admitted(together, delta, order or best_order(1.0, delta))) if others else told


def rounded_up(value: float) -> float:
    """Up to two decimals: never a number below the true one."""
    if not value < MOST_EPSILON:
        return math.inf
    return math.ceil(value * _PARTS) / _PARTS


def admitted(events: Iterable[PrivacyEvent], delta: float, order: float) -> float:
    """Epsilon at `delta` by Rényi divergence at one order: what a budget is held against, rounded up."""
    return rounded_up(_rdp(_sorted(events), delta, (order,)))


def best_order(epsilon: float, delta: float) -> float:
    """The Rényi order at which a budget (epsilon, delta) buys most: fixed when the budget is made.

    For Gaussian noise the divergence is rho times the order; the order with the largest rho that converts to at most
    the budget (Mironov 2017, proposition 3, as sharpened by Canonne, Kamath and Steinke 2020, proposition 12).
    """
    orders = np.array(_ORDERS)
    converted = np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return float(orders[int(np.argmax((epsilon - converted) / orders))])


def default_delta(rows: int) -> float:
    """N to the power of -1.1, which is below 1/N."""
    delta: float = float(max(rows, 2)) ** -1.1
    return delta


def accountant() -> str:
    """Who counted, for the receipt."""
    return f"pld, dp-accounting {importlib.metadata.version('dp-accounting')}"


@lru_cache(maxsize=256)
def noise_multiplier(target: float, delta: float, q: float, steps: int, sampling: Sampling = "poisson") -> float:
    """The least noise multiplier, to four decimals, with which `steps` Gaussian releases stay within `target`.

    The answer depends on nothing but the numbers given, so that who reserves and who runs find the same.

    Raises:
        ValueError: where no noise does.
    """

    def spent(sigma: float) -> float:
        event = PrivacyEvent(q=q, sigma=sigma, count=steps, sampling=sampling)
        return _pld((event,), delta, _COARSE)

    high = _rdp_noise(target, delta, q, steps, sampling)
    if high is None:
        raise ValueError(f"no noise keeps {steps} steps at rate {q:g} within epsilon {target:g}")
    # More noise than is asked for is no harm; less than this would be none to speak of.
    if spent(LEAST_NOISE) <= target:
        return LEAST_NOISE
    # In small strides: far below the noise that is wanted, losses are many and slow to add up.
    low = max(LEAST_NOISE, high * 0.85)
    while spent(low) <= target:
        low, high = max(LEAST_NOISE, low * 0.85), low

    def distance(logarithm: float) -> float:
        return math.log(max(spent(math.exp(logarithm)), 1e-9) / target)

    # Four or five looks, since both axes are logarithms and the curve is almost straight there.
    found = math.exp(brentq(distance, math.log(low), math.log(high), xtol=1e-5))
    sigma = _up(found)
    while spent(sigma) > target:
        sigma = _up(sigma + 1 / _NOISE_PARTS)
    return sigma


def _up(sigma: float) -> float:
    return math.ceil(round(sigma * _NOISE_PARTS, 3)) / _NOISE_PARTS


def _rdp_noise(target: float, delta: float, q: float, steps: int, sampling: Sampling) -> float | None:
    """A noise multiplier that suffices by Rényi divergence, within a hundredth; None where none does."""

    def enough(sigma: float) -> bool:
        event = PrivacyEvent(q=q, sigma=sigma, count=steps, sampling=sampling)
        return _rdp((event,), delta, None) <= target

    low, high = LEAST_NOISE, 1.0
    while not enough(high):
        low, high = high, high * 2
        if high > _MOST_NOISE:
            return None
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _sorted(events: Iterable[PrivacyEvent]) -> tuple[PrivacyEvent, ...]:
    return tuple(sorted(merged(events), key=lambda one: (one.mechanism, one.sampling, one.q, one.sigma, one.count)))


# What the accounts of a whole service hold: each takes a third of a second, and Prometheus asks every few seconds.
@lru_cache(maxsize=4096)
def _pld(events: Sequence[PrivacyEvent], delta: float, grid: float | None) -> float:
    """Epsilon by privacy loss distributions; by Rényi divergence where it is lower, or they cannot serve.

    Either figure is an upper bound, so the lower of the two is one.
    """
    renyi = _rdp(events, delta, None)
    hopeless = not renyi <= _FAR or delta < _LEAST_DELTA
    if not events or hopeless or (step := _grid(events, renyi, grid or _FINE)) is None:
        return renyi
    composed = [_as_dp_event(event) for event in events]
    ledger = dp_accounting_pld().PLDAccountant(value_discretization_interval=step)
    if not all(ledger.supports(one) for one in composed):
        return renyi
    for one in composed:
        ledger.compose(one)
    return min(renyi, float(ledger.get_epsilon(delta)))


def _grid(events: Sequence[PrivacyEvent], renyi: float, wanted: float) -> float | None:
    """The distance of the losses that are told apart: as wanted, or larger where they would be too many to add up.

    None: only a grid that says nothing would do. How far losses reach follows from public numbers alone: those of one
    release from its noise, cut off where e to the power of -50 is left; those of all from the divergence, which bounds
    their variance.
    """
    reach = 0.0
    for event in events:
        if event.count > _MOST_COUNT:
            return None
        width = 1 / event.sigma**2 + 21 / event.sigma
        reach += 4 * width + 25 * math.sqrt(renyi) + 2 * renyi / width
    step = max(wanted, reach / _MOST_POINTS)
    return step if step <= _TOO_COARSE else None


@lru_cache(maxsize=8192)
def _rdp(events: Sequence[PrivacyEvent], delta: float, orders: tuple[float, ...] | None) -> float:
    """Epsilon by Rényi divergence at the best of `orders`, or of many; infinite where an event is outside it."""
    if not events:
        return 0.0
    composed = [_as_dp_event(event) for event in events]
    if any(one is None for one in composed):
        return math.inf
    ledger = dp_accounting_rdp().RdpAccountant(list(orders or _ORDERS))
    if not all(ledger.supports(one) for one in composed):
        return math.inf
    for one in composed:
        ledger.compose(one)
    return float(ledger.get_epsilon(delta))


def _as_dp_event(event: PrivacyEvent) -> Any:
    """The library's event; None for what no figure may be given of: a sampler that it does not know, or no noise."""
    if event.mechanism == "none" or event.sigma <= 0 or event.sampling not in {"poisson", "none"}:
        return None
    if event.sampling == "none" and event.q != 1:
        return None
    library = dp_accounting()
    make = library.GaussianDpEvent if event.mechanism == "gaussian" else library.LaplaceDpEvent
    one = make(event.sigma)
    if event.q < 1:
        one = library.PoissonSampledDpEvent(event.q, one)
    return one if event.count == 1 else library.SelfComposedDpEvent(one, event.count)
