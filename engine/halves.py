"""Frozen weights of linear layers in half a format, cast once. Knows no instruction and no run.

Autocast keeps the cast copy of a weight only where it learns: beside adapters it would cast the whole frozen model anew
in each forward pass. The copies are those that autocast makes, so nothing that is computed differs as long as they are
of the present weights. Frozen is what no optimizer holds: per-example gradients are made while no weight asks for one,
and a fused optimizer moves a weight without raising its version.
"""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn


@dataclass(frozen=True)
class _Half:
    module: nn.Linear
    whole: nn.Parameter
    version: int
    half: nn.Parameter

    def is_current(self, dtype: torch.dtype) -> bool:
        """Whether the layer still has the weight that was cast, unchanged."""
        same = self.module._parameters["weight"] is self.whole and self.whole._version == self.version
        return same and self.half.dtype == dtype


_KEPT: "WeakKeyDictionary[nn.Module, tuple[_Half, ...]]" = WeakKeyDictionary()


@contextmanager
def frozen_in(model: nn.Module, dtype: torch.dtype, learning: Set[int]) -> Iterator[None]:
    """Within, the model's frozen linear layers have their weights in `dtype`; a weight that two share is cast once.

    Args:
        learning: the ids of the weights that an optimizer holds.
    """
    halves, frozen = _KEPT.get(model, ()), _frozen(model, learning)
    if [one.module for one in halves] != frozen or not all(one.is_current(dtype) for one in halves):
        halves = _KEPT[model] = _cast(frozen, dtype)
    for one in halves:
        one.module._parameters["weight"] = one.half
    try:
        yield
    finally:
        for one in halves:
            one.module._parameters["weight"] = one.whole


@contextmanager
def whole_in(model: nn.Module) -> Iterator[None]:
    """Within, layers that `frozen_in` has cast have their own weights again: for what is computed in full meanwhile."""
    cast = [one for one in _KEPT.get(model, ()) if one.module._parameters["weight"] is one.half]
    for one in cast:
        one.module._parameters["weight"] = one.whole
    try:
        yield
    finally:
        for one in cast:
            one.module._parameters["weight"] = one.half


def _frozen(model: nn.Module, learning: Set[int]) -> list[nn.Linear]:
    # What inherits from a linear layer may use its weight in another way, as DoRA does: it takes the norm of it.
    normed = {id(one.base_layer) for one in model.modules() if getattr(one, "lora_variant", None)}
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and id(module) not in normed
        and (weight := module._parameters.get("weight")) is not None
        and not weight.requires_grad
        and id(weight) not in learning
        and weight.dtype == torch.float32
    ]


def _cast(frozen: list[nn.Linear], dtype: torch.dtype) -> tuple[_Half, ...]:
    made: dict[int, nn.Parameter] = {}
    found = []
    for module in frozen:
        whole = module._parameters["weight"]
        assert whole is not None
        if id(whole) not in made:
            made[id(whole)] = nn.Parameter(whole.detach().to(dtype), requires_grad=False)
        found.append(_Half(module, whole, whole._version, made[id(whole)]))
    return tuple(found)
