"""The parameters of an optimizer: which decay and which do not, and what multiplies the rate. Knows no instruction."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

_UNDECAYED = (nn.Embedding, nn.LayerNorm, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)

# Facts of a run in which few weights learn, and by what these multiply the rate of a whole model.
FEW_WEIGHTS: Mapping[str, float] = {"adapters": 10.0, "head_alone": 200.0, "few_weights": 10.0}


def rate_factor(facts: Iterable[str]) -> float:
    """What multiplies the rate of a whole model; where several facts hold, the first of them decides."""
    known = frozenset(facts)
    return next((factor for fact, factor in FEW_WEIGHTS.items() if fact in known), 1.0)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups over the parameters that require a gradient, each in exactly one.

    Matrices and kernels decay; biases, norms and embeddings do not: they have no scale that decay could keep in check
    (Loshchilov and Hutter 2019). A tied weight is listed once and counts as an embedding.
    """
    spared = {
        id(weight)
        for module in model.modules()
        if isinstance(module, _UNDECAYED)
        for weight in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for weight in model.parameters():
        if weight.requires_grad:
            (undecayed if weight.ndim < 2 or id(weight) in spared else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
