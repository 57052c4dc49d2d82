"""Which slices of a model's tensors are coupled, so that they only go together. Knows no scores and removes nothing.

A dependency graph (Fang et al. 2023, DepGraph, section 3) says it: with an output unit go the same index of its bias,
of the norm behind it, of the next layer's inputs and of all that a residual add joins.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from engine.lazy import torch_pruning

Forward: TypeAlias = Callable[[nn.Module], Tensor]  # a model to its logits on some fixed rows

WEIGHTED = (nn.Linear, nn.Conv2d)


class Unfit(ValueError):
    """A model or a ratio that cannot be pruned; `parameter` names the choice that is at fault."""

    def __init__(self, parameter: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.parameter, self.detail, self.remedy = parameter, detail, remedy


@dataclass(frozen=True)
class Width:
    """How many units a coupled group has: channels or neurons, or heads of `size` channels each in `attention`."""

    units: int
    size: int = 1
    attention: str | None = None


def widths(model: nn.Module, forward: Forward) -> dict[str, Width]:
    """The groups that can be pruned, by the name of the layer that makes their units.

    These are the inner units of an encoder's blocks, its heads, and all channels of a convolutional net; never the
    label outputs, nor the residual stream of an encoder, which the embedding shares.

    Raises:
        Unfit: where the graph cannot be followed.
    """
    return {name: width for name, width, _ in groups(model, forward)}


def has_heads(module: nn.Module) -> bool:
    """Whether a module splits its channels into heads and says how many."""
    return isinstance(getattr(module, "num_attention_heads", None), int) and hasattr(module, "attention_head_size")


@contextmanager
def followed(model: nn.Module) -> Iterator[None]:
    """Every weight requires a gradient within: parts that are held still can be followed and scored, and stay so."""
    was = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.requires_grad_(True)
    try:
        yield
    finally:
        for name, weight in model.named_parameters():  # cut ones are new, by their old names
            weight.requires_grad_(was.get(name, True))


def _graph(model: nn.Module, forward: Forward) -> Any:
    """The dependency graph.

    Raises:
        Unfit: naming the modules that it does not reach.
    """
    remedy = "leave structured_pruning (45) out, or choose another base model"
    try:
        with torch.enable_grad(), followed(model):
            graph = (
                torch_pruning()
                .DependencyGraph()
                .build_dependency(
                    model, example_inputs=None, forward_fn=lambda traced, _: forward(traced).sum(), verbose=False
                )
            )
    except Exception as error:  # the tracer raises what it comes across
        raise Unfit("", f"the graph of {type(model).__name__} cannot be followed: {error}", remedy) from error
    lost = [
        name
        for name, module in model.named_modules()
        if isinstance(module, WEIGHTED) and module not in graph.module2node
    ]
    if lost:
        raise Unfit("", f"the graph cannot be followed through {', '.join(lost[:5])}", remedy)
    return graph


def groups(model: nn.Module, forward: Forward) -> Iterator[tuple[str, Width, Any]]:
    """(name of the producing layer, width, group over all its units)."""
    graph = _graph(model, forward)
    names = {module: name for name, module in model.named_modules()}
    for group in list(graph.get_all_groups(root_module_types=list(WEIGHTED))):
        root = group[0].dep.target.module
        width = _width(model, graph, group, names)
        if width is not None:
            yield names[root], width, group


def _width(model: nn.Module, graph: Any, group: Any, names: Mapping[nn.Module, str]) -> Width | None:
    """The width of a group that may be pruned, else None."""
    pairs = [(dep.target.module, dep.handler) for dep, _ in group]
    members = [module for module, _ in pairs if module in names]
    makers = [module for module, how in pairs if isinstance(module, WEIGHTED) and graph.is_out_channel_pruning_fn(how)]
    takers = [module for module, how in pairs if isinstance(module, WEIGHTED) and graph.is_in_channel_pruning_fn(how)]
    if not takers:  # the label outputs
        return None
    units = len(group[0].idxs)
    if all(isinstance(module, nn.Conv2d) for module in makers):
        plain = all(isinstance(module, (*WEIGHTED, nn.BatchNorm2d)) for module in members)
        return (
            Width(units)
            if plain and all(module.groups == 1 for module in members if isinstance(module, nn.Conv2d))
            else None
        )
    if not all(isinstance(module, nn.Linear) for module in members) or not _in_block(model, names[makers[0]]):
        return None
    parents = {names[module].rpartition(".")[0] for module in makers}
    parent = model.get_submodule(min(parents))
    if len(parents) == 1 and has_heads(parent):
        heads = int(vars(parent)["num_attention_heads"])
        return Width(heads, units // heads, min(parents))
    # Two layers that meet in a product are somebody's attention, whose heads are not known here.
    return Width(units) if len(makers) == 1 else None


def _in_block(model: nn.Module, name: str) -> bool:
    """Whether a module lies in a list of repeated blocks: a pooler does not."""
    parts = name.split(".")
    return any(
        isinstance(model.get_submodule(".".join(parts[:depth])), nn.ModuleList) for depth in range(1, len(parts))
    )
