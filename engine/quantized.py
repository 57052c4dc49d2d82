"""Modules that round as the exported file will, and how a model is fitted with them. Knows no task, no instruction."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.quantization import ActivationRange, Setting, rounded_blocks, rounded_weight


class QuantizedLinear(nn.Linear):
    """A Linear whose input and weight are rounded as they will be in the file."""

    def __init__(self, plain: nn.Linear, inputs: ActivationRange) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, device="meta")
        self.weight, self.bias, self.inputs = plain.weight, plain.bias, inputs
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:  # torch's own name
        """The rounded product."""
        values = self.inputs(input)
        setting, weight = self.inputs.setting, self.weight
        if setting.active:
            block, bits = setting.linear_block, setting.weight_bits
            weight = rounded_blocks(weight, block) if block else rounded_weight(weight, bits)
        return functional.linear(values, weight, self.bias)


class QuantizedConv2d(nn.Conv2d):
    """A Conv2d whose input and kernel are rounded as they will be in the file."""

    def __init__(self, plain: nn.Conv2d, inputs: ActivationRange) -> None:
        super().__init__(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # type: ignore[arg-type]  # pairs to mypy, tuples at run time
            plain.stride,  # type: ignore[arg-type]
            plain.padding,  # type: ignore[arg-type]
            plain.dilation,  # type: ignore[arg-type]
            plain.groups,
            plain.bias is not None,
            plain.padding_mode,
            device="meta",
        )
        self.weight, self.bias, self.inputs = plain.weight, plain.bias, inputs
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:  # torch's own name
        """The rounded convolution."""
        values = self.inputs(input)
        setting = self.inputs.setting
        weight = rounded_weight(self.weight, setting.weight_bits) if setting.active else self.weight
        result: Tensor = self._conv_forward(values, weight, self.bias)
        return result


class QuantizedEmbedding(nn.Embedding):
    """An Embedding whose rows are rounded, each with a step of its own.

    Only the rows that a batch looks up are rounded: what a rounded table would give, for a fraction of the work.
    """

    def __init__(self, plain: nn.Embedding, setting: Setting) -> None:
        super().__init__(plain.num_embeddings, plain.embedding_dim, plain.padding_idx, _weight=plain.weight)
        self.weight, self.setting = plain.weight, setting
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:  # torch's own name
        """The rounded rows."""
        rows = super().forward(input)
        if not self.setting.active:
            return rows
        block, flat = self.setting.embedding_block, rows.reshape(-1, rows.shape[-1])
        rounded = rounded_blocks(flat, block) if block else rounded_weight(flat, self.setting.weight_bits)
        return rounded.view_as(rows)


def wrap(model: nn.Module, setting: Setting, keep: Sequence[str], probe: Callable[[nn.Module], Any]) -> nn.Module:
    """Swap every Linear, Conv2d and Embedding for a rounding one that holds the same parameters.

    Args:
        keep: modules left alone: names, or last parts of names, with all that is inside them.
        probe: runs the model once; readers of one tensor are found by it and share one range.
    """
    inputs = _inputs(model, probe)
    ranges: dict[int, ActivationRange] = {}
    for name, module in list(model.named_modules()):
        new: nn.Module | None = None
        if any(_is_in(name, kept) for kept in keep):
            continue
        if type(module) is nn.Embedding and module.max_norm is None:
            new = QuantizedEmbedding(module, setting)
        elif isinstance(module, nn.Linear | nn.Conv2d) and type(module) in {nn.Linear, nn.Conv2d} and name in inputs:
            shared = ranges.setdefault(inputs[name], ActivationRange(setting).to(module.weight.device))
            new = QuantizedLinear(module, shared) if isinstance(module, nn.Linear) else QuantizedConv2d(module, shared)
        if new is not None:
            model.set_submodule(name, new)
    model.register_forward_pre_hook(_NotePadding(setting), with_kwargs=True)
    return model


def _is_in(name: str, kept: str) -> bool:
    """Whether a module has this name, or a part of it, or lies in one that has."""
    return f".{kept}." in f".{name}."


def unknown(model: nn.Module, keep: Sequence[str]) -> list[str]:
    """Names of modules to be left alone that no module has."""
    return [kept for kept in keep if not any(_is_in(name, kept) for name, _ in model.named_modules())]


class _NotePadding:
    """Keeps the batch's mask where the ranges find it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def __call__(self, _module: nn.Module, _arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.setting.padding = keywords.get("attention_mask")


def forget_padding(model: nn.Module) -> None:
    """Take the hook that keeps the mask off a model that is done training."""
    for number, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, _NotePadding):
            del model._forward_pre_hooks[number], model._forward_pre_hooks_with_kwargs[number]


def _inputs(model: nn.Module, probe: Callable[[nn.Module], Any]) -> dict[str, int]:
    """Which tensor each module reads, as a number that readers of one tensor share."""
    held: list[Tensor] = []
    found: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            number = next((i for i, one in enumerate(held) if one is arguments[0]), len(held))
            if number == len(held):
                held.append(arguments[0])
            found[name] = number

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            probe(model.eval())
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found


def ranges_of(model: nn.Module) -> dict[str, ActivationRange]:
    """Every range once, by the first name of it."""
    return {
        name.removesuffix(".inputs"): one for name, one in model.named_modules() if isinstance(one, ActivationRange)
    }


def setting_of(model: nn.Module) -> Setting | None:
    """What the quantised modules share; None where there are none."""
    for module in model.modules():
        if isinstance(module, ActivationRange | QuantizedEmbedding):
            return module.setting
    return None


@contextmanager
def in_float(model: nn.Module) -> Iterator[None]:
    """The model without rounding, for the time of the block."""
    setting = setting_of(model)
    if setting is None:
        yield
        return
    was, setting.active = setting.active, False
    try:
        yield
    finally:
        setting.active = was


def plain(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> nn.Module:
    """A copy with torch's own modules in the place of the rounding ones of these kinds."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if not isinstance(module, kinds):
            continue
        new: nn.Module
        if isinstance(module, QuantizedEmbedding):
            new = nn.Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx, _weight=module.weight)
        elif isinstance(module, QuantizedLinear):
            new = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            new.weight, new.bias = module.weight, module.bias
        else:
            raise TypeError(f"{name} has no plain form here")
        model.set_submodule(name, new.train(module.training))
    return model


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model by the names it has without quantised modules: no ranges."""
    ours = tuple(
        f"{name}." for name, one in model.named_modules(remove_duplicate=False) if isinstance(one, ActivationRange)
    )
    return {name: value for name, value in model.state_dict().items() if not name.startswith(ours)}
