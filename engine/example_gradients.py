"""What each example adds to the gradient of a layer's parameters, in cheap forms: norms first, then a weighted sum.

A layer's part of every example's norm follows from its inputs and output gradients, and the weighted sum from the same
tensors. Knows no model and no bound.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.adapters import factors_of, is_fused

_SMALL = 1 << 18  # numbers that may be kept of one layer


Call = tuple[Tensor, Tensor]  # what a layer was given, and the gradient of what it gave


class Part(Protocol):
    """One parameter's gradients of all examples, in some cheap form."""

    parameter: Tensor

    def squared(self) -> Tensor:
        """The squared norm of each example's gradient, (batch,)."""

    def total(self, factors: Tensor, kept: Tensor | None) -> Tensor:
        """The sum of the examples' gradients times `factors` (batch,), shaped as the parameter.

        Args:
            kept: (batch,), which examples count, since 0 times infinity is no number; None where all do.
        """


@dataclass
class Direct:
    """The gradients themselves, (batch, *shape): for what is small, such as biases and gains."""

    parameter: Tensor
    each: Tensor

    def squared(self) -> Tensor:
        """Sum of squares."""
        return self.each.flatten(1).square().sum(1)

    def total(self, factors: Tensor, kept: Tensor | None) -> Tensor:
        """Weighted sum."""
        factors, each = _of(kept, factors, self.each)
        return (factors @ each.flatten(1)).view_as(self.parameter)


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

    def total(self, factors: Tensor, kept: Tensor | None) -> Tensor:
        """One product over all examples and positions."""
        if self.formed is not None:
            return Direct(self.parameter, self.formed).total(factors, kept)
        factors, given, back = _of(kept, factors, self.given, self.back)
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

    def total(self, factors: Tensor, kept: Tensor | None) -> Tensor:
        """Scattered into a table of zeros."""
        factors, ids, back = _of(kept, factors, self.ids, self.back)
        scaled = (back * factors.view(-1, 1, 1)).flatten(0, 1)
        return torch.zeros_like(self.parameter).index_add_(0, ids.flatten(), scaled)


def _of(kept: Tensor | None, *values: Tensor) -> Sequence[Tensor]:
    return values if kept is None else [one[kept] for one in values]


def _joined(calls: list[Tensor]) -> Tensor:
    """Several calls of one layer as more positions of one call."""
    return calls[0] if len(calls) == 1 else torch.cat(calls, 1)


def _by_position(calls: Sequence[Call]) -> tuple[Tensor, Tensor]:
    """Inputs (batch, positions, in) and output gradients (batch, positions, out) of all calls."""
    pairs = [[one.flatten(1, -2) if one.ndim > 2 else one[:, None] for one in call] for call in calls]
    return _joined([given for given, _ in pairs]), _joined([back for _, back in pairs])


def _linear(module: nn.Module, calls: Sequence[Call]) -> Iterator[Part]:
    assert isinstance(module, nn.Linear)
    given, back = _by_position(calls)
    yield Outer(module.weight, given, back)
    if module.bias is not None:
        yield Direct(module.bias, back.sum(1))


def _adapted(module: nn.Module, calls: Sequence[Call]) -> Iterator[Part]:
    """y = (...) + scale (x A') B' has two factors, each a linear layer with what the other makes of its input."""
    factors = factors_of(module)
    assert factors is not None
    down, up, scale = factors
    given, back = _by_position(calls)
    yield Outer(down, given, (back @ up.float()).mul_(scale))
    yield Outer(up, (given @ down.float().mT).mul_(scale), back)


def _embedding(module: nn.Module, calls: Sequence[Call]) -> Iterator[Part]:
    assert isinstance(module, nn.Embedding)
    ids = _joined([x.flatten(1) if x.ndim > 1 else x[:, None] for x, _ in calls])
    back = _joined([g.flatten(1, -2) if g.ndim > 2 else g[:, None] for _, g in calls])
    if module.padding_idx is not None:
        back = back * (ids != module.padding_idx).unsqueeze(-1)
    yield Looked(module.weight, ids, back)


def _layer_norm(module: nn.Module, calls: Sequence[Call]) -> Iterator[Part]:
    assert isinstance(module, nn.LayerNorm)
    shape = module.normalized_shape
    gain = [g * nn.functional.layer_norm(x, shape, eps=module.eps) for x, g in calls]
    yield Direct(module.weight, torch.stack([one.reshape(len(one), -1, *shape).sum(1) for one in gain]).sum(0))
    if module.bias is not None:
        yield Direct(module.bias, torch.stack([g.reshape(len(g), -1, *shape).sum(1) for _, g in calls]).sum(0))


def _group_norm(module: nn.Module, calls: Sequence[Call]) -> Iterator[Part]:
    assert isinstance(module, nn.GroupNorm)
    gain = [g * nn.functional.group_norm(x, module.num_groups, eps=module.eps) for x, g in calls]
    yield Direct(module.weight, torch.stack([one.flatten(2).sum(2) for one in gain]).sum(0))
    yield Direct(module.bias, torch.stack([g.flatten(2).sum(2) for _, g in calls]).sum(0))


def _conv(module: nn.Module, calls: Sequence[Call]) -> Iterator[Part]:
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


PartsOf = Callable[[nn.Module, Sequence[Call]], Iterator[Part]]

# Exact types: what inherits from a layer may compute something else.
_KNOWN: dict[type[nn.Module], PartsOf] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Conv2d: _conv,
}


def parts_of(module: nn.Module) -> PartsOf | None:
    """How the gradients of single examples follow for a layer; None where it is not known here."""
    if is_fused(module):
        return _adapted
    return _KNOWN.get(type(module)) if _plain(module) else None


def _plain(module: nn.Module) -> bool:
    """Whether a layer does what its kind does by default, as far as the formulas here depend on it."""
    if isinstance(module, nn.Embedding):
        return not module.sparse and not module.scale_grad_by_freq and module.max_norm is None
    return not isinstance(module, nn.Conv2d) or (module.padding_mode == "zeros" and not isinstance(module.padding, str))
