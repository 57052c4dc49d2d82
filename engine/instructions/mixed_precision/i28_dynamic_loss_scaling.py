"""Instruction 28. Knows nothing of casting; the loop unscales before anything looks at a gradient."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from engine.baseline import BASELINE
from engine.errors import Diverged
from engine.instruction import Instruction
from engine.ports import device_of
from engine.run import Run


class DynamicLossScaling(Instruction):
    """Multiplies the loss so that fp16 gradients do not vanish, and skips and adapts where they overflow.

    Sound: PyTorch's GradScaler: scale, backward, unscale once at the end of the window, clip, step, update. A step that
    overflowed moves neither weights nor moments nor rate, halves the scale, and the next one goes on; the scale grows
    after `growth_interval` good steps, not after each. Its state travels in every snapshot.

    Refuses: plans without fp16 products, where there is nothing to scale: bf16 has the range of fp32; 37, whose
    clipping would see scaled norms. More than `max_skips` skipped steps in a row end the run: it has diverged.

    Effect: fp16 follows the curve of fp32 instead of stalling. `skipped_steps` and the last `scale` are reported.
    """

    number = 28
    band = "mixed_precision"
    title = "Dynamic loss scaling"
    source = "Micikevicius et al. 2017 (arXiv 1710.03740) section 3.2"
    metric = "skipped_steps"
    name: Literal["dynamic_loss_scaling"] = "dynamic_loss_scaling"

    init_scale: float = Field(default=65536.0, ge=1, le=2**24, description="the first scale")
    growth_factor: float = Field(default=2.0, gt=1, le=8, description="the scale is multiplied by it when it grows")
    backoff_factor: float = Field(
        default=0.5, gt=0, lt=1, description="the scale is multiplied by it after an overflow"
    )
    growth_interval: int = Field(default=200, ge=1, le=10_000, description="good steps in a row before it grows")
    max_skips: int = Field(default=50, ge=1, le=1000, description="skipped steps in a row before the run fails")

    @property
    def provides(self) -> frozenset[str]:
        """Small gradients survive half precision."""
        return frozenset({"loss_scaling"})

    @property
    def needs(self) -> Mapping[str, str]:
        """Half precision, or there is nothing to scale."""
        return {
            "fp16_autocast": "bf16 and fp32 need no loss scaling; choose autocast (26) with dtype float16, or drop 28"
        }

    @property
    def excludes(self) -> Mapping[str, str]:
        """Where scaling is useless, and where it does harm."""
        return {
            "bf16_weights": "bf16 has the range of fp32: there is nothing to scale",
            "dp_sgd": "a scaled norm is clipped far too hard, and the noise then drowns the gradient",
        }

    def scaler(self, run: Run) -> torch.amp.GradScaler:
        """A scaler that is on."""
        return torch.amp.GradScaler(
            device_of(run.model).type,
            init_scale=self.init_scale,
            growth_factor=self.growth_factor,
            backoff_factor=self.backoff_factor,
            growth_interval=self.growth_interval,
        )

    def step(self, run: Run) -> bool:
        """Step, or count a skip.

        Raises:
            Diverged: after more than `max_skips` in a row.
        """
        state = run.state(self.name)
        taken = BASELINE.step(run)
        state["in_row"] = 0 if taken else state.get("in_row", 0) + 1
        state["skipped"] = state.get("skipped", 0) + (not taken)
        if state["in_row"] > self.max_skips:
            detail = f"{state['in_row']} steps in a row overflowed: the loss is not finite at any scale"
            raise Diverged(detail, remedy="lower training.learning_rate, or set autocast.dtype to bfloat16")
        return taken

    def report(self, run: Run) -> Mapping[str, float]:
        """Skipped steps and the last scale."""
        return {"skipped_steps": float(run.state(self.name).get("skipped", 0)), "scale": run.scaler.get_scale()}
