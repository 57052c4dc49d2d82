"""Integers for weights and activations: the maths of 47, 49 and 51, and the range of one tensor.

Affine with a whole-number zero point: 0.0 maps to exactly 0.0, so padding and the zeros of a ReLU stay what they are.
Weights are symmetric with one scale an output channel (an embedding: one a row). Knows neither tasks nor instructions.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

Activation: TypeAlias = Literal["static", "dynamic"]
Inputs: TypeAlias = Literal["static", "dynamic", "float"]
# The smallest step: a constant tensor of zeros has no range to divide.
_LEAST_STEP = 1e-8
_SAMPLED = 65_536


def affine(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Step and zero point of the levels 0 to 2^bits - 1 over [low, high], widened to hold 0.

    low, high: () or (n,); the step is fp32, the zero point int32. Jacob et al. 2018, section 3.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    top = 2**bits - 1
    step = ((high - low) / top).clamp(min=_LEAST_STEP)
    return step, (-low / step).round().clamp(0, top).to(torch.int32)


def quantize(values: Tensor, step: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Levels, int32: clamp(round(x / step) + zero_point)."""
    return (torch.round(values / step) + zero_point).clamp(0, 2**bits - 1).to(torch.int32)


def dequantize(levels: Tensor, step: Tensor, zero_point: Tensor) -> Tensor:
    """Values of levels: (q - zero_point) step."""
    values: Tensor = (levels - zero_point).float() * step
    return values


def weight_step(weight: Tensor, bits: int) -> Tensor:
    """One symmetric step for each index of the first axis, (n,): the largest magnitude gets the highest level."""
    low, high = weight.detach().flatten(1).aminmax(dim=1)  # one pass, without a copy for the magnitudes
    step: Tensor = torch.maximum(-low, high) / (2 ** (bits - 1) - 1)
    return step.clamp(min=_LEAST_STEP)


def weight_levels(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Levels of a weight, int8 of its shape, and its steps (n,) of the first axis."""
    step, top = weight_step(weight, bits), 2 ** (bits - 1) - 1
    shaped = step.view(-1, *[1] * (weight.ndim - 1))
    return (weight.detach() / shaped).round().clamp(-top, top).to(torch.int8), step


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """A weight rounded to its levels; the gradient passes straight through (Bengio et al. 2013)."""
    step, top = weight_step(weight, bits), 2 ** (bits - 1) - 1
    zeros = torch.zeros_like(step, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, step, zeros, 0, -top, top)


def rounded_blocks(weight: Tensor, block: int) -> Tensor:
    """A weight (rows, width) rounded to 4 bits, each `block` neighbours of a row with a step of their own.

    The levels are -8 to 7, the largest magnitude of a block is -8: what ONNX Runtime's quantiser stores.
    """
    blocks = weight.detach().reshape(weight.shape[0], -1, block)
    step = blocks.gather(2, blocks.abs().argmax(dim=2, keepdim=True)) / -8.0
    levels = torch.where(step == 0, 0.0, blocks / step).round().clamp(-8, 7)
    return (levels * step).view_as(weight)


def _sampled(values: Tensor) -> Tensor:
    """About 65,536 of the values (rows, ...), spread over all places of a row, and so over all channels.

    A step that shares a factor with the size of a row would look at the same few channels of every row.
    """
    flat, place = values.flatten(), math.prod(values.shape[1:])
    step = max(1, flat.numel() // _SAMPLED)
    while math.gcd(step, place) > 1:
        step += 1
    return flat[::step]


@dataclass
class Setting:
    """What the quantised modules of one model share.

    `padding`: the attention mask of the batch under way, (batch, sequence), or None. `percentile` None: ranges are the
    extremes. `observing`: while the model trains; `calibrating`: also while it does not. A block: 4-bit weights with a
    step for so many neighbours of a row.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    activation: Inputs = "static"
    linear_block: int | None = None
    embedding_block: int | None = None
    percentile: float | None = None
    active: bool = True
    observing: bool = True
    calibrating: bool = False
    counting: bool = False
    padding: Tensor | None = None


class ActivationRange(nn.Module):
    """The range of one tensor, rounded to its levels on the way through.

    The first batch sets the range, so nothing is biased towards 0. What later batches show is gathered in `seen_*` and
    left there until somebody moves the range (`move`) after the step. All of it lives in buffers, so in every snapshot.
    """

    low: Tensor
    high: Tensor
    seen_low: Tensor
    seen_high: Tensor
    updates: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        for name, value in (("low", 0.0), ("high", 0.0), ("seen_low", torch.inf), ("seen_high", -torch.inf)):
            self.register_buffer(name, torch.tensor(value))
        self.register_buffer("updates", torch.tensor(0, dtype=torch.int64))
        self.counted = [0, 0]
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, values: Tensor) -> Tensor:
        """The same tensor on its levels; several readers of one tensor share the work."""
        if self._last is not None and self._last[0] is values:
            return self._last[1]
        setting = self.setting
        if setting.activation == "static" and (setting.calibrating or (self.training and setting.observing)):
            self._observe(values.detach())
        if setting.counting:
            self._count(values.detach())
        if not setting.active or setting.activation == "float":
            return values
        step, zero_point = affine(*self._range(values), setting.activation_bits)
        result = torch.fake_quantize_per_tensor_affine(values, step, zero_point, 0, 2**setting.activation_bits - 1)
        self._last = (values, result) if self.training else None
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Copies start without the batch under way."""
        return {**self.__dict__, "_last": None}

    def _range(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.setting.activation == "dynamic":
            low, high = values.detach().float().aminmax()
            return low, high
        return self.low, self.high

    def _mask_of(self, values: Tensor) -> Tensor | None:
        """The batch's mask where the values are of its tokens, (batch, sequence, width): a picture has four axes."""
        mask = self.setting.padding
        return mask if mask is not None and values.ndim == 3 and values.shape[:2] == mask.shape else None

    @torch.no_grad()
    def _observe(self, values: Tensor) -> None:
        low, high = self._extremes(values)
        self.seen_low.copy_(torch.minimum(self.seen_low, low))
        self.seen_high.copy_(torch.maximum(self.seen_high, high))
        first = self.updates == 0
        self.low.copy_(torch.where(first, torch.minimum(self.low, low), self.low))
        self.high.copy_(torch.where(first, torch.maximum(self.high, high), self.high))

    def _extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The extremes, or the percentiles, of what is no padding."""
        mask = self._mask_of(values)
        if self.setting.percentile is not None:
            flat = _sampled(values if mask is None else values[mask.bool()]).float()
            share = self.setting.percentile / 100
            ends = torch.quantile(flat, torch.tensor([1 - share, share], device=flat.device))
            return ends[0], ends[1]
        if mask is None:
            low, high = values.aminmax()
            return low.float(), high.float()
        low, high = values.flatten(2).aminmax(dim=-1)
        real = mask.bool()
        return low.float().masked_fill(~real, torch.inf).amin(), high.float().masked_fill(~real, -torch.inf).amax()

    @torch.no_grad()
    def move(self, keep: float, *, widen: bool = False, symmetric: bool = False) -> None:
        """Move the range to what was seen since the last move: `keep` of the old one stays, or it only widens.

        What is not finite (an overflow of half precision) is dropped.
        """
        sound = torch.isfinite(self.seen_low) & torch.isfinite(self.seen_high)
        low, high = self.seen_low.clamp(max=0.0), self.seen_high.clamp(min=0.0)
        if symmetric:
            high = torch.maximum(-low, high)
            low = -high
        first = self.updates == 0
        if widen:
            moved_low, moved_high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        else:
            moved_low, moved_high = torch.lerp(low, self.low, keep), torch.lerp(high, self.high, keep)
        self.low.copy_(torch.where(sound, torch.where(first, low, moved_low), self.low))
        self.high.copy_(torch.where(sound, torch.where(first, high, moved_high), self.high))
        self.updates.add_(sound.long())
        self.forget()

    @torch.no_grad()
    def forget(self) -> None:
        """Drop what was seen."""
        self.seen_low.fill_(torch.inf)
        self.seen_high.fill_(-torch.inf)

    def _count(self, values: Tensor) -> None:
        outside = (values < self.low.clamp(max=0.0)) | (values > self.high.clamp(min=0.0))
        mask = self._mask_of(values)
        if mask is not None:
            outside = outside[mask.bool()]
        self.counted = [self.counted[0] + int(outside.sum()), self.counted[1] + outside.numel()]
