"""Instruction 51: the ranges of rounding layers, tracked. Knows when they move; how is `engine.quantization`'s."""

from collections.abc import Mapping
from statistics import median
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from engine.inference import eager_answers
from engine.instruction import ALL_TASKS, Instruction
from engine.quantization import Setting
from engine.quantized import ranges_of, setting_of
from engine.run import Run

_COUNTED_ROWS = 64


class DynamicRange(Instruction):
    """Keeps the activation ranges of the rounding layers up to date while they train, and then lets them rest.

    Sound: s = (max - min) / (2^b - 1) over a range widened to hold 0, z = round(-min / s), a whole number within the
    levels, so 0.0 stays 0.0 (the article's zero point has the wrong sign: standard normal values all become one level).
    The first batch sets the range and the average starts with a ramp, so a short run does not keep its first batch.
    What an overflow of half precision left is dropped. Ranges are buffers, so a resumed run moves on bit-exactly.

    Refuses: dynamic activations, which have no range to track. Warns of a layer whose input was zero throughout.

    Effect: `clipped_share`, the share of inputs outside their range on 64 training rows, median and worst layer. The
    first batch's min and max left alone clip what later batches bring.
    """

    number = 51
    band = "quantization_aware_training"
    title = "Dynamic range tracking"
    source = "Jacob et al. 2018 (1712.05877) section 3.1; Krishnamoorthi 2018 (1806.08342) section 2"
    metric = "clipped_share"
    # A language model ships as a Hugging Face folder, which holds no integers: see its format gguf.
    tasks = ALL_TASKS - {"causal_lm"}
    name: Literal["dynamic_range"] = "dynamic_range"

    observer: Literal["moving_average", "percentile", "minmax"] = Field(
        default="moving_average",
        description="average of each batch's extremes, average of its percentiles, or extremes so far",
    )
    momentum: float = Field(
        default=0.99, ge=0.5, le=0.9999, allow_inf_nan=False, description="what an average keeps of itself a step"
    )
    percentile: float = Field(
        default=99.9, gt=90, le=100, allow_inf_nan=False, description="upper end of a batch in percent; percentile only"
    )
    symmetric: bool = Field(default=False, description="ranges from -m to m")

    @property
    def provides(self) -> frozenset[str]:
        """Somebody moves the ranges, by what training rows show."""
        return frozenset({"tracked_ranges", "reads_training_rows"})

    @property
    def needs(self) -> Mapping[str, str]:
        """Layers that round."""
        return {"fake_quantized": "it moves the ranges of rounding layers (quantization_aware_training, 49)"}

    @property
    def excludes(self) -> Mapping[str, str]:
        """One owner a range."""
        return {
            "dynamic_activations": "ranges made anew by each batch cannot be tracked; set activation to static in 49",
            "learned_step_size": "both own the same ranges",
        }

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Say what is to be seen of a batch: its extremes or its percentiles."""
        self._setting(model).percentile = self.percentile if self.observer == "percentile" else None
        return model

    def after_step(self, run: Run) -> None:
        """Move every range to what the step's batches showed."""
        if not self._setting(run.model).observing:
            return
        state = run.state(self.name)
        moved = state.get("updates", 0)
        keep = min(self.momentum, (1 + moved) / (10 + moved))
        for one in ranges_of(run.model).values():
            one.move(keep, widen=self.observer == "minmax", symmetric=self.symmetric)
        state["updates"] = moved + 1

    def trained(self, run: Run, model: nn.Module) -> nn.Module:
        """Let the ranges rest, and count what they clip: those that ship, which `training.keep` may have chosen."""
        self._setting(run.model).observing = False
        shares = self._clipped(run)
        silent = [name for name, one in ranges_of(run.model).items() if not torch.any(one.high > one.low)]
        if silent:
            run.warn("constant_input", f"the input of {', '.join(silent[:5])} was zero throughout: it has no range")
        run.state(self.name)["effects"] = {
            "clipped_share": median(shares),
            "clipped_share_worst": max(shares),
            "ranges": float(len(shares)),
        }
        return model

    def report(self, run: Run) -> Mapping[str, float]:
        """What the ranges clip, and how often they moved."""
        state = run.state(self.name)
        return {**state.get("effects", {}), "updates": float(state.get("updates", 0))}

    def _clipped(self, run: Run) -> list[float]:
        """The share of values outside each range, over some training rows."""
        setting, ranges = self._setting(run.model), ranges_of(run.model).values()
        for one in ranges:
            one.counted = [0, 0]
        setting.counting = True
        eager_answers(run.task, run.model, run.data.examples["train"][:_COUNTED_ROWS])
        setting.counting = False
        return [one.counted[0] / max(1, one.counted[1]) for one in ranges] or [0.0]

    def _setting(self, model: nn.Module) -> Setting:
        setting = setting_of(model)
        if setting is None:
            raise ValueError("no layer of the model rounds")
        return setting
