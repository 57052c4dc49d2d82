"""Operators of our own for integer arithmetic: how PyTorch runs them, and what ONNX has for them. Knows no model.

`engine.integer_modules` puts them in the place of modules that round.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnxscript import opset20 as op
from torch import Tensor

from engine.quantization import affine, dequantize, quantize


@torch.library.custom_op("fiftytwo::linear", mutates_args=())
def _linear(
    x: Tensor, levels: Tensor, step: Tensor, x_step: Tensor, x_zero: Tensor, bias: Tensor | None, bits: int
) -> Tensor:
    """x (..., in), levels (in, out) int8, step (out,) -> (..., out)."""
    product = _rounded(x, x_step, x_zero, bits) @ (levels.float() * step)
    return product if bias is None else product + bias


@_linear.register_fake
def _(
    x: Tensor, levels: Tensor, step: Tensor, x_step: Tensor, x_zero: Tensor, bias: Tensor | None, bits: int
) -> Tensor:
    return x.new_empty(*x.shape[:-1], levels.shape[1])


@torch.library.custom_op("fiftytwo::dynamic_linear", mutates_args=())
def _dynamic_linear(x: Tensor, levels: Tensor, step: Tensor, bias: Tensor | None) -> Tensor:
    """The same with the range of the batch at hand."""
    x_step, x_zero = affine(*x.aminmax(), 8)
    product = _rounded(x, x_step, x_zero, 8) @ (levels.float() * step)
    return product if bias is None else product + bias


@_dynamic_linear.register_fake
def _(x: Tensor, levels: Tensor, step: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], levels.shape[1])


@torch.library.custom_op("fiftytwo::conv2d", mutates_args=())
def _conv2d(
    x: Tensor,
    levels: Tensor,
    step: Tensor,
    x_step: Tensor,
    x_zero: Tensor,
    bias: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    bits: int,
) -> Tensor:
    """x (batch, in, h, w), levels (out, in / groups, kh, kw) int8, step and bias (out,)."""
    values = _rounded(x, x_step, x_zero, bits)
    product = torch.nn.functional.conv2d(values, levels.float(), None, stride, padding, dilation, groups)
    return product * step.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


@_conv2d.register_fake
def _(
    x: Tensor,
    levels: Tensor,
    step: Tensor,
    x_step: Tensor,
    x_zero: Tensor,
    bias: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    bits: int,
) -> Tensor:
    return torch.nn.functional.conv2d(x, levels.float(), bias, stride, padding, dilation, groups)


@torch.library.custom_op("fiftytwo::embedding", mutates_args=())
def _embedding(ids: Tensor, levels: Tensor, step: Tensor) -> Tensor:
    """ids (...), levels (rows, width) int8, step (rows, 1) -> (..., width): never the whole table in fp32."""
    return levels[ids].float() * step[ids]


@_embedding.register_fake
def _(ids: Tensor, levels: Tensor, step: Tensor) -> Tensor:
    return step.new_empty(*ids.shape, levels.shape[1])


def _rounded(x: Tensor, step: Tensor, zero: Tensor, bits: int) -> Tensor:
    zero_point = zero.to(torch.int32)
    return dequantize(quantize(x, step, zero_point, bits), step, zero_point)


# What stands in the graph for each operator: arguments as above.


def _onnx_levels(x: Any, x_step: Any, x_zero: Any, bits: int) -> Any:
    if bits < 8:  # the file's levels go to 255, those of training to less
        zero: Any = op.Cast(x_zero, to=1)
        top: Any = op.Constant(value_float=float(2**bits - 1))
        x = op.Clip(x, op.Mul(op.Neg(zero), x_step), op.Mul(op.Sub(top, zero), x_step))
    return op.QuantizeLinear(x, x_step, x_zero)


def _onnx_linear(x: Any, levels: Any, step: Any, x_step: Any, x_zero: Any, bias: Any, bits: int) -> Any:
    values = op.DequantizeLinear(_onnx_levels(x, x_step, x_zero, bits), x_step, x_zero)
    product = op.MatMul(values, op.DequantizeLinear(levels, step, axis=1))
    return product if bias is None else op.Add(product, bias)


def _onnx_dynamic_linear(x: Any, levels: Any, step: Any, bias: Any) -> Any:
    quantized, x_step, x_zero = op.DynamicQuantizeLinear(x)
    product = op.Mul(op.Cast(op.MatMulInteger(quantized, levels, x_zero), to=1), op.Mul(x_step, step))
    return product if bias is None else op.Add(product, bias)


def _onnx_conv2d(
    x: Any,
    levels: Any,
    step: Any,
    x_step: Any,
    x_zero: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    bits: int,
) -> Any:
    # Constants alone, which ONNX Runtime folds when it loads the file, to convolve in fp32. Its integer kernels took
    # twice (QLinearConv) to six times (ConvInteger) as long for a batch of 32 pictures of 28 pixels.
    shape: Any = op.Constant(value_ints=[-1, 1, 1, 1])
    kernel = op.Mul(op.Cast(levels, to=1), op.Reshape(step, shape))
    values = op.DequantizeLinear(_onnx_levels(x, x_step, x_zero, bits), x_step, x_zero)
    pads = [*padding, *padding]
    return op.Conv(values, kernel, bias, strides=list(stride), pads=pads, dilations=list(dilation), group=groups)


def _onnx_embedding(ids: Any, levels: Any, step: Any) -> Any:
    return op.Mul(op.Cast(op.Gather(levels, ids), to=1), op.Gather(step, ids))


TRANSLATIONS: Mapping[Any, Callable[..., Any]] = {
    torch.ops.fiftytwo.linear.default: _onnx_linear,
    torch.ops.fiftytwo.dynamic_linear.default: _onnx_dynamic_linear,
    torch.ops.fiftytwo.conv2d.default: _onnx_conv2d,
    torch.ops.fiftytwo.embedding.default: _onnx_embedding,
}
