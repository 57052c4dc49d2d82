"""A linear layer and its low-rank update as one function. Knows no instruction and no run.

PEFT adds the update with six small operations, and under autocast each of its products casts the layer's input anew.
Here the three products add up in place, and what several layers read is cast once: query, key and value are handed the
same tensor one after another.
"""

import weakref
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.lazy import peft


def fuse(model: nn.Module) -> None:
    """Let the plain low-rank layers of a PEFT model compute in one go."""
    once = _CastOnce()
    for module in model.modules():
        if isinstance(module, peft().tuners.lora.Linear):
            vars(module).update(cast_once=once, forward=MethodType(_forward, module))


def _forward(layer: Any, x: Tensor, *rest: Any, **named: Any) -> Tensor:
    """What PEFT's layer answers; whatever is not plain (DoRA, dropout, merged, under hooks) is left to it."""
    parts = factors_of(layer)
    if parts is None or rest or named:
        found: Tensor = type(layer).forward(layer, x, *rest, **named)
        return found
    down, up, scale = parts
    base = layer.base_layer
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    bias = None if base.bias is None else base.bias.to(dtype)
    with torch.autocast(kind, enabled=False):
        weights = (base.weight.to(dtype), bias, down.to(dtype), up.to(dtype))
        flat = layer.cast_once.to(x, dtype).flatten(0, -2)
        answer: Tensor = _Adapted.apply(flat, *weights, scale)  # type: ignore[no-untyped-call]
    shaped: Tensor = answer.unflatten(0, x.shape[:-1])
    return shaped


def is_fused(module: nn.Module) -> bool:
    """Whether this is a layer that computes in one go, and what may learn of it are the two factors alone."""
    if "cast_once" not in vars(module) or factors_of(module) is None:
        return False
    return not any(weight.requires_grad for weight in module.base_layer.parameters())  # type: ignore[union-attr]


def factors_of(layer: Any) -> tuple[nn.Parameter, nn.Parameter, float] | None:
    """A (rank, in), B (out, rank) and the scale of a layer with one plain adapter that nobody watches, else None."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    (name,) = layer.active_adapters
    if name not in layer.lora_A or name in layer.lora_variant:
        return None
    down, up, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    drops = isinstance(dropout, nn.Dropout) and dropout.training
    if drops or any(one._forward_hooks or one._forward_pre_hooks for one in (down, up, layer.base_layer)):
        return None
    return down.weight, up.weight, layer.scaling[name]


class _CastOnce:
    """The last tensor that was cast, and what it became."""

    def __init__(self) -> None:
        self._of: weakref.ref[Tensor] | None = None
        self._version = 0
        self._cast = torch.empty(0)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_CastOnce":
        memo[id(self)] = fresh = _CastOnce()  # a tensor of a graph cannot be copied
        return fresh

    def to(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The tensor in `dtype`, with its gradient's way back where gradients are kept."""
        if tensor.dtype == dtype:
            return tensor
        known = self._of is not None and self._of() is tensor and self._version == tensor._version
        learns = tensor.requires_grad and torch.is_grad_enabled()
        if not known or self._cast.dtype != dtype or self._cast.requires_grad != learns:
            self._of, self._version, self._cast = weakref.ref(tensor), tensor._version, tensor.to(dtype)
        return self._cast


class _Adapted(torch.autograd.Function):
    """x W' + b + scale (x A') B' for rows x (n, in), W (out, in), A (rank, in) and B (out, rank) of one dtype."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        narrow = x @ down.t()
        answer = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        ctx.save_for_backward(x, weight, down, up, narrow)
        ctx.scale, ctx.has_bias = scale, bias is not None
        return answer.addmm_(narrow, up.t(), alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, narrow = ctx.saved_tensors
        of_x, of_weight, of_bias, of_down, of_up = ctx.needs_input_grad[:5]
        narrow_gradient = (gradient @ up).mul_(ctx.scale)
        return (
            (gradient @ weight).addmm_(narrow_gradient, down) if of_x else None,
            gradient.t() @ x if of_weight else None,
            gradient.sum(0) if of_bias else None,
            narrow_gradient.t() @ x if of_down else None,
            (gradient.t() @ narrow).mul_(ctx.scale) if of_up else None,
            None,
        )
