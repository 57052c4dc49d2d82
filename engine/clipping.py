"""The clipped sum of per-example gradients, by one forward and one backward pass. Knows no run, no noise, no sampler.

Autograd goes back to the outputs of the trainable layers and no further: their weights ask for no gradient meanwhile.
Each layer's part of every example's norm follows from its inputs and output gradients, and once all norms are known the
clipped sum follows from the same tensors (Li et al. 2022, ghost clipping; Bu et al. 2023, book-keeping). Norms and sums
are fp32 whatever the layers computed in. An example whose gradient is not finite counts as zero.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.adapters import is_fused
from engine.example_gradients import Call, Part, parts_of

_MIXES = (nn.modules.batchnorm._BatchNorm,)


class Unclippable(ValueError):
    """A model whose examples have no gradients of their own, or none that are known here; says what to do instead."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


def trainable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that own a parameter in training, by name.

    Raises:
        Unclippable: where a layer mixes examples, is not known here, or shares its weight with another.
    """
    found: dict[str, nn.Module] = {}
    owners: dict[int, str] = {}
    inside: set[int] = set()  # of a fused layer, which stands for all that it is made of
    for name, module in model.named_modules():
        if isinstance(module, _MIXES):
            detail = f"{name} is batch norm, which mixes the examples of a batch: none has a gradient of its own"
            raise Unclippable(detail, "choose a base model with layer or group norm")
        if id(module) in inside:
            continue
        fused = is_fused(module)
        if fused:
            inside.update(map(id, module.modules()))
        own = [weight for weight in module.parameters(recurse=fused) if weight.requires_grad]
        if not own:
            continue
        if parts_of(module) is None:
            detail = f"per-example gradients of {name} ({type(module).__name__}) are not known here"
            raise Unclippable(detail, "train less of the model: scope head, or lora with low_rank_adaptation (19)")
        for weight in own:
            first = owners.setdefault(id(weight), name)
            if first != name:
                detail = f"{first} and {name} share one weight, whose gradient is a sum over both"
                raise Unclippable(detail, "choose scope lora with low_rank_adaptation (19), which leaves it alone")
        found[name] = module
    return found


def add_clipped(model: nn.Module, losses_of: Callable[[], Tensor], bound: float) -> Tensor:
    """Add the sum of the clipped gradients of all examples to `.grad` of every trainable parameter.

    Args:
        losses_of: one forward pass of `model`; one loss an example, (batch,), each a function of that example alone.
        bound: the largest L2 norm of one example's gradient over all parameters together.

    Returns:
        The norms before clipping, (batch,): private, for tests alone.

    Raises:
        Unclippable: as `trainable_layers`, and where a layer saw one row for the whole batch.
    """
    with _recorded(model) as calls:
        losses = losses_of()
        outputs = [output for _, _, _, output in calls]
        gradients = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
    parts = list(_parts(calls, gradients, len(losses)))
    with torch.no_grad():
        squared = torch.stack([part.squared() for part in parts]).sum(0) if parts else torch.zeros(len(losses))
        norms = squared.sqrt()
        factors = bound / norms.clamp(min=bound)
        finite = norms.isfinite()
        kept = None if bool(finite.all()) else finite
        for part in parts:
            total, weight = part.total(factors, kept), part.parameter
            weight.grad = total if weight.grad is None else weight.grad.add_(total)
    return norms


Recorded = tuple[str, nn.Module, Tensor, Tensor]  # name, layer, input, output


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[Recorded]]:
    """Within, the trainable layers note what they are given and give, and no weight asks for a gradient."""
    layers = trainable_layers(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    calls: list[Recorded] = []
    size = 0

    def seen(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal size
        size = next(len(one) for one in (*args, *kwargs.values()) if isinstance(one, Tensor))

    def expanded(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # Position ids come as one row for the batch: its gradient would be one for all examples.
        ids = args[0]
        return (ids.expand(size, *ids.shape[1:]), *args[1:]) if ids.ndim > 1 and len(ids) == 1 else args

    def noted(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def note(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            # The graph starts at the first trainable layer: the frozen ones below cost nothing.
            output = output if output.requires_grad else output.detach().requires_grad_()
            calls.append((name, module, args[0].detach(), output))
            return output

        return note

    hooks = [model.register_forward_pre_hook(seen, with_kwargs=True)]
    for name, layer in layers.items():
        if isinstance(layer, nn.Embedding):
            hooks.append(layer.register_forward_pre_hook(expanded))
        hooks.append(layer.register_forward_hook(noted(name)))
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield calls
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        for hook in hooks:
            hook.remove()


def _parts(calls: Sequence[Recorded], gradients: Sequence[Tensor | None], size: int) -> Iterator[Part]:
    """The parts of every layer that the losses depend on; a layer that was called twice has both calls in one."""
    by_layer: dict[int, tuple[nn.Module, list[Call]]] = {}
    for (name, module, given, _), back in zip(calls, gradients, strict=True):
        if back is None:
            continue
        if len(given) != size or len(back) != size:
            detail = f"{name} was given {len(given)} rows for {size} examples: its gradient belongs to none of them"
            raise Unclippable(detail, "train less of the model: scope head, or lora with low_rank_adaptation (19)")
        pair = (given.float() if given.is_floating_point() else given, back.float())
        by_layer.setdefault(id(module), (module, []))[1].append(pair)
    for module, pairs in by_layer.values():
        formula = parts_of(module)
        assert formula is not None, "trainable_layers lets no other layer pass"
        yield from (part for part in formula(module, pairs) if part.parameter.requires_grad)
