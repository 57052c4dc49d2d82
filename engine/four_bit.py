"""ONNX files with 4-bit weights in blocks, through ONNX Runtime's quantiser. Knows neither tasks nor instructions."""

import logging
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from torch import Tensor, nn

from engine.export import canonical, check_answers, export_onnx
from engine.inference import eager_answers
from engine.integer_modules import TOLERANCE, export_integers
from engine.ports import Payload, Task
from engine.quantized import QuantizedEmbedding, QuantizedLinear, plain


class _Product(nn.Module):
    """A Linear as the product that the quantiser looks for; torch's own becomes a Gemm where its input is a matrix."""

    weight: Tensor

    def __init__(self, plain_linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", plain_linear.weight.detach().t().contiguous())
        self.bias = plain_linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        product = torch.matmul(x, self.weight)
        return product if self.bias is None else product + self.bias


def _as_products(model: nn.Module) -> nn.Module:
    """A copy that holds torch's embeddings and, for each rounding Linear, a product."""
    rounding = [name for name, one in model.named_modules() if isinstance(one, QuantizedLinear)]
    model = plain(model, (QuantizedLinear, QuantizedEmbedding))
    for name in rounding:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, _Product(linear))
    return model


def _rounding(model: nn.Module, what: Literal["all", "embeddings"]) -> list[Tensor]:
    """The weights that are to have 4 bits, as they stand in the graph."""
    embeddings = [one.weight for one in model.modules() if isinstance(one, QuantizedEmbedding)]
    linears = [one.weight.t() for one in model.modules() if isinstance(one, QuantizedLinear)]
    return embeddings if what == "embeddings" else [*embeddings, *linears]


def _others(graph: onnx.GraphProto, weights: Iterable[Tensor]) -> list[str]:
    """The nodes that hold none of these weights: a module that is left in fp32 is written by the same operators."""
    wanted = {sha256(np.ascontiguousarray(one.detach().numpy()).tobytes()).digest() for one in weights}
    held = {one.name for one in graph.initializer if sha256(numpy_helper.to_array(one).tobytes()).digest() in wanted}
    return [node.name for node in graph.node if not held.intersection(node.input)]


def export_four_bit(
    task: Task,
    model: nn.Module,
    payloads: Sequence[Payload],
    path: Path,
    *,
    what: Literal["all", "embeddings"],
    block: int,
) -> Path:
    """Write a rounding model with 4-bit weights: everything, or the embeddings alone and integers elsewhere.

    The graph is held against the eager model before the weights shrink, and again after.

    Raises:
        WrongExport: where either differs by more than roundings explain.
    """
    whole = path.with_name("whole.onnx")
    if what == "all":
        export_onnx(task, _as_products(model), payloads, whole)
    else:
        export_integers(task, plain(model, (QuantizedEmbedding,)), payloads, whole)
    graph = onnx.load(whole)
    quantizer = MatMulNBitsQuantizer(
        graph,
        block_size=block,
        is_symmetric=True,
        accuracy_level=4,
        nodes_to_exclude=_others(graph.graph, _rounding(model, what)),
        op_types_to_quantize=("MatMul", "Gather") if what == "all" else ("Gather",),
    )
    logging.getLogger("onnxruntime.quantization").setLevel(logging.WARNING)  # it tells of every node
    with np.errstate(invalid="ignore", divide="ignore"):  # a row of zeros (padding's) is divided by its own size there
        quantizer.process()
    whole.unlink()
    path.write_bytes(canonical(quantizer.model.model))
    check_answers(task, path, payloads, eager_answers(task, model, task.encode(payloads), 1), TOLERANCE)
    return path
