"""The clipped sum of per-example gradients, by one forward and one backward pass. Knows no run, no noise, no sampler.

Autograd goes back to the outputs of the trainable layers and no further: their weights ask for no gradient meanwhile.
Each layer's part of every example's norm follows from its inputs and output gradients, and once all norms are known the
clipped sum follows from the same tensors (Li et al. 2022, ghost clipping; Bu et al. 2023, book-keeping). Norms and sums
are fp32 whatever the layers computed in. An example whose gradient is not finite counts as zero.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_MIXES = (nn.modules.batchnorm._BatchNorm,)
_SMALL = 1 << 18  # numbers that may be kept of one layer


class Unclippable(ValueError):
    """A model whose examples have no gradients of their own, or none that are known here; says what to do instead."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


class Part(Protocol):
    """One parameter's gradients of all examples, in some cheap form."""

    parameter: Tensor

    def squared(self) -> Tensor:
        """The squared norm of each example's gradient, (batch,)."""

    def total(self, factors: Tensor) -> Tensor:
        """The sum of the examples' gradients times `factors` (batch,), shaped as the parameter."""


@dataclass
class Direct:
    """The gradients themselves, (batch, *shape): for what is small, such as biases and gains."""

    parameter: Tensor
    each: Tensor

    def squared(self) -> Tensor:
        """Sum of squares."""
        return self.each.flatten(1).square().sum(1)

    def total(self, factors: Tensor) -> Tensor:
        """Weighted sum; an example of factor 0 may hold anything."""
        kept = factors > 0
        return torch.einsum("b,bn->n", factors[kept], self.each.flatten(1)[kept]).view_as(self.parameter)


@dataclass
class Outer:
    """Gradients that are sums over positions of outer products: `given` (batch, positions, in), `back` (.., out)."""

    parameter: Tensor
    given: Tensor
    back: Tensor
    formed: Tensor | None = None

    def squared(self) -> Tensor:
        """By Gram matrices of the positions where these are smaller than the gradient (Goodfellow 2015; Li 2022)."""
        positions, size = self.given.shape[1], self.given.shape[2] * self.back.shape[2]
        if positions == 1:
            return self.given.square().sum((1, 2)) * self.back.square().sum((1, 2))
        if 2 * positions**2 < size:
            return (self.back @ self.back.mT).mul_(self.given @ self.given.mT).sum((1, 2)).clamp_(min=0)
        formed = self.back.mT @ self.given
        if formed.numel() <= _SMALL:  # an adapter's: its sum needs no second product
            self.formed = formed
        return formed.square().sum((1, 2))

    def total(self, factors: Tensor) -> Tensor:
        """One product over all examples and positions."""
        if self.formed is not None:
            return Direct(self.parameter, self.formed).total(factors)
        given, back, factors = _finite(factors, self.given, self.back)
        scaled = back * factors.view(-1, 1, 1)
        return (scaled.flatten(0, 1).mT @ given.flatten(0, 1)).view_as(self.parameter)


@dataclass
class Looked:
    """Gradients of a table of which rows were looked up: `ids` (batch, positions), `back` (batch, positions, width)."""

    parameter: Tensor
    ids: Tensor
    back: Tensor

    def squared(self) -> Tensor:
        """Positions with one id share a row, so their products count."""
        alike = self.ids[:, :, None] == self.ids[:, None, :]
        return (self.back @ self.back.mT).mul_(alike).sum((1, 2)).clamp_(min=0)

    def total(self, factors: Tensor) -> Tensor:
        """Scattered into a table of zeros."""
        ids, back, factors = _finite(factors, self.ids, self.back)
        scaled = (back * factors.view(-1, 1, 1)).flatten(0, 1)
        return torch.zeros_like(self.parameter).index_add_(0, ids.flatten(), scaled)


def _finite(factors: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three without the examples of factor 0, since 0 times infinity is no number."""
    kept = factors > 0
    return (first, second, factors) if bool(kept.all()) else (first[kept], second[kept], factors[kept])


def _joined(calls: list[Tensor]) -> Tensor:
    """Several calls of one layer as more positions of one call."""
    return calls[0] if len(calls) == 1 else torch.cat(calls, 1)


def _linear(module: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Part]:
    assert isinstance(module, nn.Linear)
    given = _joined([x.flatten(1, -2) if x.ndim > 2 else x[:, None] for x, _ in calls])
    back = _joined([g.flatten(1, -2) if g.ndim > 2 else g[:, None] for _, g in calls])
    yield Outer(module.weight, given, back)
    if module.bias is not None:
        yield Direct(module.bias, back.sum(1))


def _embedding(module: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Part]:
    assert isinstance(module, nn.Embedding)
    ids = _joined([x.flatten(1) if x.ndim > 1 else x[:, None] for x, _ in calls])
    back = _joined([g.flatten(1, -2) if g.ndim > 2 else g[:, None] for _, g in calls])
    if module.padding_idx is not None:
        back = back * (ids != module.padding_idx).unsqueeze(-1)
    yield Looked(module.weight, ids, back)


def _layer_norm(module: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Part]:
    assert isinstance(module, nn.LayerNorm)
    shape = module.normalized_shape
    gain = [g * nn.functional.layer_norm(x, shape, eps=module.eps) for x, g in calls]
    yield Direct(module.weight, torch.stack([one.reshape(len(one), -1, *shape).sum(1) for one in gain]).sum(0))
    if module.bias is not None:
        yield Direct(module.bias, torch.stack([g.reshape(len(g), -1, *shape).sum(1) for _, g in calls]).sum(0))


def _group_norm(module: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Part]:
    assert isinstance(module, nn.GroupNorm)
    gain = [g * nn.functional.group_norm(x, module.num_groups, eps=module.eps) for x, g in calls]
    yield Direct(module.weight, torch.stack([one.flatten(2).sum(2) for one in gain]).sum(0))
    yield Direct(module.bias, torch.stack([g.flatten(2).sum(2) for _, g in calls]).sum(0))


def _conv(module: nn.Module, calls: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Part]:
    """A convolution is a linear layer over its patches, group by group."""
    assert isinstance(module, nn.Conv2d)
    assert not isinstance(module.padding, str)
    size, dilation, padding, stride = module.kernel_size, module.dilation, module.padding, module.stride
    patches = _joined([nn.functional.unfold(x, size, dilation, padding, stride).mT for x, _ in calls])
    back = _joined([g.flatten(2).mT for _, g in calls])
    if module.groups == 1:
        yield Outer(module.weight, patches, back)
    else:
        apart = (module.groups, -1)
        each = torch.einsum("bpgi,bpgo->bgoi", patches.unflatten(2, apart), back.unflatten(2, apart))
        yield Direct(module.weight, each.flatten(1, 2).unflatten(2, module.weight.shape[1:]))
    if module.bias is not None:
        yield Direct(module.bias, back.sum(1))


# Exact types: what inherits from a layer may compute something else.
_KNOWN: dict[type[nn.Module], Callable[[nn.Module, Sequence[tuple[Tensor, Tensor]]], Iterator[Part]]] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Conv2d: _conv,
}


def trainable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that own a parameter in training, by name.

    Raises:
        Unclippable: where a layer mixes examples, is not known here, or shares its weight with another.
    """
    found: dict[str, nn.Module] = {}
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, _MIXES):
            detail = f"{name} is batch norm, which mixes the examples of a batch: none has a gradient of its own"
            raise Unclippable(detail, "choose a base model with layer or group norm")
        own = [weight for weight in module.parameters(recurse=False) if weight.requires_grad]
        if not own:
            continue
        if type(module) not in _KNOWN or not _plain(module):
            detail = f"per-example gradients of {name} ({type(module).__name__}) are not known here"
            raise Unclippable(detail, "train less of the model: scope head, or lora with low_rank_adaptation (19)")
        for weight in own:
            first = owners.setdefault(id(weight), name)
            if first != name:
                detail = f"{first} and {name} share one weight, whose gradient is a sum over both"
                raise Unclippable(detail, "choose scope lora with low_rank_adaptation (19), which leaves it alone")
        found[name] = module
    return found


def _plain(module: nn.Module) -> bool:
    """Whether a layer does what its kind does by default, as far as the formulas here depend on it."""
    if isinstance(module, nn.Embedding):
        return not module.sparse and not module.scale_grad_by_freq and module.max_norm is None
    return not isinstance(module, nn.Conv2d) or (module.padding_mode == "zeros" and not isinstance(module.padding, str))


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
        factors = (bound / norms.clamp(min=bound)).masked_fill(~norms.isfinite(), 0.0)
        for part in parts:
            total, weight = part.total(factors), part.parameter
            weight.grad = total if weight.grad is None else weight.grad.add_(total)
    return norms


Call = tuple[str, nn.Module, Tensor, Tensor]  # name, layer, input, output


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[Call]]:
    """Within, the trainable layers note what they are given and give, and no weight asks for a gradient."""
    layers = trainable_layers(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    calls: list[Call] = []
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


def _parts(calls: Sequence[Call], gradients: Sequence[Tensor | None], size: int) -> Iterator[Part]:
    """The parts of every layer that the losses depend on; a layer that was called twice has both calls in one."""
    by_layer: dict[int, tuple[nn.Module, list[tuple[Tensor, Tensor]]]] = {}
    for (name, module, given, _), back in zip(calls, gradients, strict=True):
        if back is None:
            continue
        if len(given) != size or len(back) != size:
            detail = f"{name} was given {len(given)} rows for {size} examples: its gradient belongs to none of them"
            raise Unclippable(detail, "train less of the model: scope head, or lora with low_rank_adaptation (19)")
        pair = (given.float() if given.is_floating_point() else given, back.float())
        by_layer.setdefault(id(module), (module, []))[1].append(pair)
    for module, pairs in by_layer.values():
        yield from (part for part in _KNOWN[type(module)](module, pairs) if part.parameter.requires_grad)
