"""Removes hidden units, channels, heads and layers with all that is coupled to them. Knows no run and no task.

How many units stay is an exact count, and which is decided by topk, never by a threshold: ten equal scores must not
fall together. A pruned model is stored with its shapes, which a configuration cannot say.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from engine.coupling import WEIGHTED, Forward, Unfit, Width, followed, groups, has_heads
from engine.lazy import torch_pruning

Importance: TypeAlias = Literal["l1", "l2", "taylor"]
Shapes: TypeAlias = dict[str, Any]  # JSON: {"tensors": {name: [sizes]}, "heads": {module: n}, "blocks": {module: n}}

MIN_UNITS = 8
_NORMS = (nn.BatchNorm2d, nn.LayerNorm)
_RESIZABLE = (*WEIGHTED, *_NORMS)
_TENSORS = ("weight", "bias", "running_mean", "running_var")


def kept(width: Width, ratio: float, round_to: int) -> int:
    """How many units stay: the nearest multiple of `round_to` (a whole number of heads) to (1 - ratio) units.

    Raises:
        Unfit: where under 8 units or under 1 head would.
    """
    multiple, least = (1, 1) if width.attention else (round_to, MIN_UNITS)
    left = min(width.units, multiple * math.floor(width.units * (1 - ratio) / multiple + 0.5))
    if left < min(least, width.units):
        parameter, what = ("head_ratio", "heads") if width.attention else ("ratio", "units")
        detail = f"{parameter} {ratio:g} would leave {left} of {width.units} {what}; at least {least} must stay"
        raise Unfit(parameter, detail, f"choose a lower {parameter}")
    return left


def prune(
    model: nn.Module, forward: Forward, counts: Mapping[str, int], importance: Importance
) -> dict[str, list[int]]:
    """Cut each named group down to its count of units, the least important first; gives the numbers of those removed.

    "taylor" reads `.grad`, in which the loss was accumulated before.

    Raises:
        Unfit: where the graph cannot be followed, or the pruned model does not run.
    """
    chosen = [
        (name, width, group, _least(group, width, counts[name], importance))
        for name, width, group in groups(model, forward)
    ]
    with followed(model):
        for _, width, group, units in chosen:
            if units:
                group.prune([unit * width.size + i for unit in units for i in range(width.size)])
                if width.attention:
                    _set_heads(model.get_submodule(width.attention), width.units - len(units))
    try:
        with torch.no_grad():
            forward(model)
    except RuntimeError as error:
        raise Unfit(
            "ratio", f"the pruned {type(model).__name__} does not run: {error}", "leave structured_pruning out"
        ) from error
    return {name: units for name, _, _, units in chosen}


def check_blocks(model: nn.Module, count: int) -> None:
    """See whether `count` attention blocks can be removed.

    Raises:
        Unfit: where they cannot: one must stay.
    """
    if count and count >= len(encoder_of(model)[1]):
        detail = (
            f"{count} layers cannot be removed: {type(model).__name__} has {len(encoder_of(model)[1])} attention blocks"
        )
        raise Unfit("layers_removed", detail, "choose fewer; at least one must stay")


def drop_blocks(model: nn.Module, count: int, importance: Importance) -> list[int]:
    """Remove the least important attention blocks of the encoder; gives their numbers."""
    check_blocks(model, count)
    name, blocks = encoder_of(model)
    scores = [
        sum((_score(weight, importance).sum() for weight in block.parameters()), torch.zeros(())) for block in blocks
    ]
    gone = sorted(torch.stack(scores).topk(count, largest=False).indices.tolist())
    set_blocks(model, name, [block for number, block in enumerate(blocks) if number not in gone])
    return gone


def shapes_of(model: nn.Module) -> Shapes:
    """What `reshape` needs to give a fresh model these shapes, as JSON values."""
    tensors = {
        f"{name}.{part}": list(tensor.shape)
        for name, module in model.named_modules()
        for part, tensor in _parts(module)
    }
    heads = {name: int(module.num_attention_heads) for name, module in model.named_modules() if has_heads(module)}
    blocks = {name: len(blocks_in(module)) for name, module in model.named_modules() if blocks_in(module)}
    return {"tensors": tensors, "heads": heads, "blocks": blocks}


def reshape(model: nn.Module, shapes: Mapping[str, Any]) -> nn.Module:
    """Give a fresh model the shapes of a pruned one, in place; resized tensors hold zeros until a state is loaded.

    Raises:
        ValueError: where they belong to another architecture.
    """
    for name, count in shapes["blocks"].items():
        set_blocks(model, name, blocks_in(model.get_submodule(name))[:count])
    modules = dict(model.named_modules())
    known = {f"{name}.{part}" for name, module in modules.items() for part, _ in _parts(module)}
    if known != set(shapes["tensors"]):
        differing = sorted(known ^ set(shapes["tensors"]))
        raise ValueError(f"these shapes are of another architecture: {', '.join(differing[:3])}")
    for name, module in modules.items():
        for part, tensor in _parts(module):
            size = shapes["tensors"][f"{name}.{part}"]
            if list(tensor.shape) != size:
                fresh = torch.zeros(size, dtype=tensor.dtype, device=tensor.device)
                is_weight = isinstance(tensor, nn.Parameter)
                setattr(module, part, nn.Parameter(fresh, tensor.requires_grad) if is_weight else fresh)
        _tell_sizes(module)
    for name, count in shapes["heads"].items():
        _set_heads(modules[name], count)
    return model


def macs(model: nn.Module, forward: Forward) -> int:
    """Multiply-accumulates of the linear and convolution layers for the rows of `forward`."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, WEIGHTED)
        channels = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        total += output.numel() * module.weight.numel() // channels

    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, WEIGHTED)]
    with torch.no_grad():
        forward(model)
    for hook in hooks:
        hook.remove()
    return total


def _least(group: Any, width: Width, count: int, importance: Importance) -> list[int]:
    """The numbers of the units beyond `count`, least important first cut, in ascending order."""
    known = torch_pruning().importance
    judge = (
        known.GroupTaylorImportance(normalizer=None)
        if importance == "taylor"
        else known.GroupMagnitudeImportance(p=1 if importance == "l1" else 2, normalizer=None)
    )
    scores: Tensor = judge(group).view(width.units, width.size).sum(1)
    return sorted(scores.topk(width.units - count, largest=False).indices.tolist())


def _score(weight: Tensor, importance: Importance) -> Tensor:
    if importance == "taylor":
        return torch.zeros_like(weight) if weight.grad is None else (weight.detach() * weight.grad).abs()
    return weight.detach().abs() if importance == "l1" else weight.detach() ** 2


# The modules.


def _parts(module: nn.Module) -> list[tuple[str, Tensor]]:
    if not isinstance(module, _RESIZABLE):
        return []
    return [(part, tensor) for part in _TENSORS if (tensor := getattr(module, part, None)) is not None]


def _tell_sizes(module: nn.Module) -> None:
    """Write a module's sizes back from its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.BatchNorm2d) and module.weight is not None:
        module.num_features = len(module.weight)
    elif isinstance(module, nn.LayerNorm) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _set_heads(module: nn.Module, count: int) -> None:
    # Plain numbers of the attention's own; nn.Module's types allow modules and tensors alone.
    vars(module).update(num_attention_heads=count, all_head_size=count * vars(module)["attention_head_size"])


def blocks_in(module: nn.Module) -> list[nn.Module]:
    """The blocks of a list that can be made shorter: of attention, or of one stage of a residual net; else none."""
    stage = list(module) if isinstance(module, nn.Sequential) and all(map(_is_residual, module)) else []
    return _blocks(module) or stage


def _is_residual(module: nn.Module) -> bool:
    """Whether a module adds to what it reads, or to a shortcut of it, as a block of transformers' ResNet does."""
    return isinstance(getattr(module, "shortcut", None), nn.Module) and hasattr(module, "layer")


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a list in which each has attention; none where it is no such list."""
    blocks = list(module) if isinstance(module, nn.ModuleList) else []
    return blocks if all(any(map(has_heads, block.modules())) for block in blocks) else []


def encoder_of(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """The longest list of attention blocks, by name."""
    found = [(name, _blocks(module)) for name, module in model.named_modules()]
    return max(found, key=lambda pair: len(pair[1]))


def set_blocks(model: nn.Module, name: str, blocks: list[nn.Module]) -> None:
    """Put these blocks in the place of a list's own, and their number into the configuration that has one."""
    made = nn.Sequential(*blocks) if isinstance(model.get_submodule(name), nn.Sequential) else nn.ModuleList(blocks)
    model.set_submodule(name, made)
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "num_hidden_layers"):
        config.num_hidden_layers = len(blocks)
