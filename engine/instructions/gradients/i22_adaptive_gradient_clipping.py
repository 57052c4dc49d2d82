"""Instruction 22. Knows neither the optimizer nor who scaled the gradients before."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from engine.errors import Diverged
from engine.instruction import Instruction
from engine.run import Run

_SETTLING = 1.0  # the threshold while the history is too short to say anything, and of "fixed" without a ceiling
_SMALLEST_UNIT = 1e-3  # Brock et al. 2021: a unit that starts at zero must be able to grow


class AdaptiveGradientClipping(Instruction):
    """Limits the size of each update with a threshold that follows the run instead of being guessed.

    `percentile` keeps the norms of the past windows and scales a larger gradient down to their percentile (AutoClip);
    `unit` bounds each output unit's gradient by a share of its weights' norm (AGC), the last layer, biases and gains
    left alone; `fixed` clips at `ceiling`, 1.0 without one; `epoch_ramp` is max(0.1, min(1, 0.5 epoch / epochs)): it
    looks at no gradient, is tightest at the start and acts as a hidden warm-up.

    Sound: one norm a window, after unscaling, measures and clips; the history holds norms from before the clipping and
    travels in every snapshot. A norm that is not finite never enters it: under a scaler the step is skipped, without
    one the run has diverged. Adam cancels a constant factor, so only the change over time matters there.

    Refuses: 37, whose clipping of each example already bounds every gradient.

    Effect: `clipped_share` of the steps (for `unit`: of the units) and the last threshold. It widens the range of
    usable rates; above one half it is a lower learning rate under another name, and a warning says so.
    """

    number = 22
    band = "gradients"
    title = "Adaptive gradient clipping"
    source = "Seetharaman et al. 2020 (arXiv 2007.14469); Brock et al. 2021 (arXiv 2102.06171) section 4"
    metric = "clipped_share"
    name: Literal["adaptive_gradient_clipping"] = "adaptive_gradient_clipping"

    kind: Literal["percentile", "unit", "epoch_ramp", "fixed"] = Field(
        default="percentile", description="what the threshold follows"
    )
    percentile: float = Field(default=90, ge=1, le=100, description="percentile of the past norms that is let through")
    history: int = Field(default=1000, ge=10, le=100_000, description="how many past norms are kept")
    settle: int = Field(
        default=20, ge=0, le=100_000, description="steps at a threshold of 1.0 before the history counts"
    )
    unit_ratio: float = Field(default=0.01, gt=0, le=1, description="unit: largest gradient norm over weight norm")
    ceiling: float | None = Field(default=None, gt=0, le=1e6, description="the threshold never rises above it")

    @property
    def provides(self) -> frozenset[str]:
        """Every step's gradient has a bound."""
        return frozenset({"bounded_gradients"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """37 clips by itself."""
        return {"dp_sgd": "per-example clipping already bounds every gradient, and clipping the noisy sum biases it"}

    def gradients(self, run: Run) -> None:
        """Measure the norm once, then scale down what lies above the threshold."""
        state = run.state(self.name)
        gradients = [weight.grad for weight in run.model.parameters() if weight.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        norm = float(total)
        run.metric("gradient_norm", norm)
        if not math.isfinite(norm):
            if run.scaler.is_enabled():  # it saw the same and skips the step
                return
            remedy = "lower training.learning_rate, or choose a longer warm-up (20)"
            raise Diverged(f"the norm of the gradient is {norm} at step {run.clock.step + 1}", remedy=remedy)
        clipped = self._clip_units(run.model) if self.kind == "unit" else self._clip(run, gradients, norm)
        state["clipped"] = state.get("clipped", 0.0) + clipped
        state["steps"] = state.get("steps", 0) + 1
        run.metric("clipped_fraction", state["clipped"] / state["steps"])

    def report(self, run: Run) -> Mapping[str, float]:
        """The share clipped and the last threshold."""
        state = run.state(self.name)
        if not state.get("steps"):
            return {}
        share = state["clipped"] / state["steps"]
        settled = self.kind != "percentile" or state["steps"] > self.settle
        if settled and share > 0.5:
            detail = f"{share:.0%} of the steps were clipped: that is a lower learning rate under another name"
            run.warn("mostly_clipped", detail)
        return {"clipped_share": share, "threshold": self.unit_ratio if self.kind == "unit" else state["threshold"]}

    def _clip(self, run: Run, gradients: list[Tensor], norm: float) -> float:
        """Scale all gradients together; 1.0 where it did, else 0.0."""
        threshold = self._threshold(run, norm)
        run.state(self.name)["threshold"] = threshold
        if norm <= threshold:
            return 0.0
        torch._foreach_mul_(gradients, threshold / norm)
        return 1.0

    def _threshold(self, run: Run, norm: float) -> float:
        ceiling = math.inf if self.ceiling is None else self.ceiling
        if self.kind == "fixed":
            return _SETTLING if self.ceiling is None else self.ceiling
        if self.kind == "epoch_ramp":
            return min(ceiling, max(0.1, min(1.0, 0.5 * run.clock.epoch / run.spec.training.epochs)))
        state = run.state(self.name)
        norms = state.setdefault("norms", [])
        norms.append(norm)
        del norms[: -self.history]
        if state.get("steps", 0) < self.settle:
            return min(ceiling, _SETTLING)
        return min(ceiling, float(np.percentile(norms, self.percentile)))

    def _clip_units(self, model: nn.Module) -> float:
        """Scale each output unit by itself; the share of the units that were."""
        scaled = units = 0
        for weight in _unit_weights(model):
            assert weight.grad is not None
            bounds = self.unit_ratio * weight.detach().flatten(1).norm(dim=1).clamp(min=_SMALLEST_UNIT)
            norms = weight.grad.flatten(1).norm(dim=1)
            factors = torch.where(norms > bounds, bounds / norms, 1.0)
            weight.grad.mul_(factors.view(-1, *[1] * (weight.ndim - 1)))
            scaled, units = scaled + int((norms > bounds).sum()), units + len(norms)
        return scaled / units if units else 0.0


def _unit_weights(model: nn.Module) -> Iterator[Tensor]:
    """Matrices and kernels that have a gradient, less those of the last linear layer."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    spared = {id(weight) for module in linear[-1:] for weight in module.parameters()}
    for weight in model.parameters():
        if weight.grad is not None and weight.ndim >= 2 and id(weight) not in spared:
            yield weight
