"""Swaps modules that round for modules of integers, and exports them. Knows neither tasks nor instructions."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.export import export_onnx
from engine.integer import TRANSLATIONS
from engine.ports import Payload, Task
from engine.quantization import affine, weight_levels
from engine.quantized import QuantizedConv2d, QuantizedEmbedding, QuantizedLinear, forget_padding

# Where a value lies midway between two levels, PyTorch and ONNX Runtime may take different ones, and each such step
# travels on through the later layers.
TOLERANCE = 0.1


def export_integers(task: Task, model: nn.Module, payloads: Sequence[Payload], path: Path) -> Path:
    """Write a fake-quantised model as an ONNX file of integers, checked against that model.

    Raises:
        WrongExport: where its answers differ from the model's by more than roundings explain.
    """
    return export_onnx(task, model, payloads, path, graph_of=converted, translations=TRANSLATIONS, tolerance=TOLERANCE)


def converted(model: nn.Module) -> nn.Module:
    """A copy in which every quantised module holds integers."""
    model = copy.deepcopy(model).eval()
    forget_padding(model)
    norms = _following_norms(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedEmbedding):
            model.set_submodule(name, IntegerEmbedding(module))
        elif isinstance(module, QuantizedLinear):
            model.set_submodule(name, IntegerLinear(module))
        elif isinstance(module, QuantizedConv2d):
            norm = norms.get(name)
            model.set_submodule(name, IntegerConv2d(module, model.get_submodule(norm) if norm else None))
            if norm:
                model.set_submodule(norm, nn.Identity())
    return model


def _following_norms(model: nn.Module) -> dict[str, str]:
    """Convolutions whose next sibling is a batch norm over their channels, with its name."""
    found = {}
    for name, parent in model.named_modules():
        for (first, conv), (second, norm) in pairwise(parent.named_children()):
            if (
                isinstance(conv, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and norm.num_features == conv.out_channels
            ):
                prefix = f"{name}." if name else ""
                found[prefix + first] = prefix + second
    return found


class _Integer(nn.Module):
    """Buffers by name, and the range of the input."""

    def _hold(self, **tensors: Tensor) -> None:
        for name, value in tensors.items():
            self.register_buffer(name, value.detach().clone().contiguous())


class IntegerEmbedding(_Integer):
    """Rows of int8 levels, each with its step."""

    levels: Tensor
    step: Tensor

    def __init__(self, plain: QuantizedEmbedding) -> None:
        super().__init__()
        levels, step = weight_levels(plain.weight, plain.setting.weight_bits)
        self._hold(levels=levels, step=step.unsqueeze(1))

    def forward(self, ids: Tensor) -> Tensor:
        """The rows in fp32."""
        rows: Tensor = torch.ops.fiftytwo.embedding(ids, self.levels, self.step)
        return rows


class IntegerLinear(_Integer):
    """A Linear of int8 levels; its input's range is fixed, or the batch's own."""

    levels: Tensor
    step: Tensor
    x_step: Tensor
    x_zero: Tensor

    def __init__(self, plain: QuantizedLinear) -> None:
        super().__init__()
        setting, self.bias = plain.inputs.setting, plain.bias
        self.bits, self.dynamic = setting.activation_bits, setting.activation == "dynamic"
        levels, step = weight_levels(plain.weight, setting.weight_bits)
        x_step, x_zero = affine(plain.inputs.low, plain.inputs.high, self.bits)
        self._hold(levels=levels.t(), step=step, x_step=x_step, x_zero=x_zero.to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """The product in fp32."""
        ops = torch.ops.fiftytwo
        product: Tensor = (
            ops.dynamic_linear(x, self.levels, self.step, self.bias)
            if self.dynamic
            else ops.linear(x, self.levels, self.step, self.x_step, self.x_zero, self.bias, self.bits)
        )
        return product


class IntegerConv2d(_Integer):
    """A Conv2d of int8 levels, with the batch norm behind it folded into the step of each output channel."""

    levels: Tensor
    step: Tensor
    x_step: Tensor
    x_zero: Tensor
    bias: Tensor

    def __init__(self, plain: QuantizedConv2d, norm: nn.Module | None) -> None:
        super().__init__()
        setting, self.plain_stride = plain.inputs.setting, plain.stride
        self.stride, self.padding, self.dilation = (
            list(plain.stride),
            [int(p) for p in plain.padding],
            list(plain.dilation),
        )
        self.groups, self.bits = plain.groups, setting.activation_bits
        levels, step = weight_levels(plain.weight, setting.weight_bits)
        bias = plain.bias.detach() if plain.bias is not None else torch.zeros_like(step)
        if isinstance(norm, nn.BatchNorm2d):
            factor, shift = _affine_of(norm)
            step, bias = step * factor, bias * factor + shift
        x_step, x_zero = affine(plain.inputs.low, plain.inputs.high, self.bits)
        self._hold(levels=levels, step=step, bias=bias, x_step=x_step, x_zero=x_zero.to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """The convolution in fp32."""
        result: Tensor = torch.ops.fiftytwo.conv2d(
            x,
            self.levels,
            self.step,
            self.x_step,
            self.x_zero,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.bits,
        )
        return result


def _affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift (channels,) of a batch norm in evaluation."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    factor = torch.rsqrt(variance + norm.eps) * (norm.weight if norm.affine else 1.0)
    shift = (norm.bias if norm.affine else 0.0) - mean * factor
    return factor.detach(), shift.detach()
