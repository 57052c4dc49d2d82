"""Instruction 20: the shape of the learning rate over a run. Knows neither the optimizer nor the rate itself."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from engine.errors import Fault
from engine.instruction import Instruction
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

Fall: TypeAlias = Literal["linear", "cosine", "sqrt"]


class WarmupSchedule(Instruction):
    """Raises the learning rate over the first steps and lowers it to the end: linear, cosine, or warm-up-stable-decay.

    Sound: it counts optimizer steps that were taken, not micro-batches or skipped steps, and is a pure function of
    the step, so resuming needs no state. The first step already moves ((t + 1) / W, not t / W), the peak is reached
    exactly once but on the plateau of wsd, and the last step has the floor. Groups keep their own base rates: it
    gives a factor.

    Refuses: wsd whose warm-up and decay overlap.

    Effect: stability at high rates, not accuracy: a rate at which a run without it diverges may train with it. The
    report has the highest and the last rate.
    """

    number = 20
    band = "gradients"
    title = "Warm-up and decay of the learning rate"
    source = (
        "Goyal 2017 (1706.02677) s. 2.2; Loshchilov 2016 (1608.03983); Hu 2024 (2404.06395); Haegele 2024 (2405.18392)"
    )
    metric = "peak_rate"
    name: Literal["warmup_schedule"] = "warmup_schedule"
    shape: Literal["linear", "cosine", "wsd"] = Field(
        default="cosine", description="the way down: a line, half a cosine, or a plateau with a decay at the end (wsd)"
    )
    warmup: float = Field(default=0.06, ge=0, le=0.5, allow_inf_nan=False, description="share of the steps that rise")
    decay: float = Field(
        default=0.2, ge=0, le=1, allow_inf_nan=False, description="share of the steps that fall; wsd only"
    )
    floor: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False, description="factor at the last step")
    decay_shape: Literal["linear", "sqrt"] = Field(default="sqrt", description="how wsd falls: a line, or 1 - sqrt")

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """The two ends of wsd must not overlap."""
        if self.shape == "wsd" and self.warmup + self.decay > 1:
            detail = f"warmup {self.warmup:g} and decay {self.decay:g} are more than the whole run"
            yield Fault("/decay", "overlapping_shares", detail, f"send a decay of at most {1 - self.warmup:g}")

    def schedule(self, run: Run, step: int, total: int) -> float:
        """The factor at `step` of `total`."""
        rising = round(self.warmup * total)
        if self.shape == "wsd":
            falling = min(math.ceil(self.decay * total), total - max(rising, 1))
            return factor(step, total, rising, falling, self.decay_shape, self.floor)
        return factor(step, total, rising, total - max(rising, 1), self.shape, self.floor)

    def report(self, run: Run) -> Mapping[str, float]:
        """The highest and the last rate of the first parameter group."""
        base, total = float(run.optimizer.param_groups[0]["initial_lr"]), run.clock.total
        factors = [self.schedule(run, step, total) for step in range(total)]
        return {"peak_rate": base * max(factors), "last_rate": base * factors[-1]}


def factor(step: int, total: int, rising: int, falling: int, fall: Fall, floor: float) -> float:
    """The factor on the base rate, 0 to 1.

    It is (step + 1) / rising over the first `rising` steps, 1 in between, and falls over the last `falling` steps to
    `floor` at step total - 1. `falling` is at most total - max(rising, 1).
    """
    if step < rising:
        return (step + 1) / rising
    if falling == 0:
        return 1.0
    share = min(1.0, max(0.0, (step - (total - 1 - falling)) / falling))
    height = {"linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "sqrt": 1 - math.sqrt(share)}[fall]
    return floor + (1 - floor) * height
