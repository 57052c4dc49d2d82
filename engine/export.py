"""Writes ONNX files and holds each against the eager model that it came from. Knows no task and no instruction.

An export can be wrong while every tool reports success: with one tensor object passed for two inputs `torch.export`
reads the mask as the ids, and the file answers one class for everything. So no two samples may share memory, and a file
counts as written only when it gives the eager model's logits on real rows, padded and alone.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from engine.errors import WrongExport
from engine.inference import eager_answers
from engine.ports import Answers, Payload, Samples, Task

OPSET = 20
# fp32 arithmetic in another order: the largest difference seen on MiniLM is 2e-6.
TOLERANCE = 1e-3
_MEND = "report this as a fault of the server, with the job's spec: the trained model is whole, its export is not"

Translations = Mapping[Any, Callable[..., Any]]


def export_onnx(
    task: Task,
    model: nn.Module,
    payloads: Sequence[Payload],
    path: Path,
    *,
    graph_of: Callable[[nn.Module], nn.Module] = lambda model: model,
    translations: Translations | None = None,
    tolerance: float = TOLERANCE,
) -> Path:
    """Write `model` as one ONNX file with equal bytes for equal weights, checked against the eager model.

    Args:
        payloads: two real rows, of different length where the task has lengths.
        graph_of: what of the model is written, where it is not the model itself.
        translations: what the graph has for operators of our own.
        tolerance: the largest difference of a logit, times the largest logit where that is above 1.

    Raises:
        WrongExport: samples that share memory, wrong names, or answers that differ from the eager model's.
    """
    samples = task.samples(payloads)
    check_samples(samples)
    expected = eager_answers(task, model, task.encode(payloads), batch_size=1)
    graph = trace(task.exportable(graph_of(model)), samples, translations)
    path.write_bytes(canonical(graph))
    check_answers(task, path, payloads, expected, tolerance)
    return path


def check_samples(samples: Samples) -> None:
    """Refuse tracing inputs of which two are one object or lie in one memory.

    Raises:
        WrongExport: with the names of the two.
    """
    seen: dict[int, str] = {}
    for name, tensor in samples.inputs.items():
        other = seen.setdefault(tensor.untyped_storage().data_ptr(), name)
        if other != name:
            raise WrongExport(
                f"the samples {other} and {name} share memory, so the tracer would take one for the other", remedy=_MEND
            )


def trace(module: nn.Module, samples: Samples, translations: Translations | None = None) -> onnx.ModelProto:
    """The graph of a module: inputs named as the samples, outputs and free axes as the samples say."""
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(samples.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=list(samples.inputs),
            output_names=list(samples.outputs),
            dynamic_shapes={name: dict(samples.dynamic.get(name, {})) for name in samples.inputs},
            custom_translation_table=dict(translations or {}),
            verbose=False,
        )
    if program is None:
        raise WrongExport("the exporter wrote nothing", remedy=_MEND)
    graph: onnx.ModelProto = program.model_proto
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's advice to its own developers: deprecations inside torch, and each rewritten node."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx._internal.exporter._registration", "onnx_ir", "onnxscript")
    ]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def canonical(model: onnx.ModelProto) -> bytes:
    """The bytes of a graph without what differs between machines: paths, stack traces, versions of tools."""
    model.producer_name, model.producer_version, model.doc_string = "", "", ""
    del model.metadata_props[:]
    _strip(model.graph)
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        _strip_nodes(function.node)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(graph: onnx.GraphProto) -> None:
    graph.name, graph.doc_string = "model", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for one in (*graph.input, *graph.output, *graph.initializer):
        one.doc_string = ""
        del one.metadata_props[:]
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """The file in ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def file_answers(task: Task, path: Path, payloads: Sequence[Payload], batch_size: int) -> Answers:
    """Answers of a file for payloads in batches, (n, k).

    Raises:
        WrongExport: where the file's inputs or outputs are not named as the model's.
    """
    session = session_of(path)
    names = [one.name for one in session.get_inputs()]
    outputs = [one.name for one in session.get_outputs()]
    samples = task.samples(payloads)
    wanted, expected = list(samples.inputs), list(samples.outputs)
    if names != wanted or outputs != expected:
        raise WrongExport(
            f"the file takes {names} and gives {outputs}; it should take {wanted} and give {expected}", remedy=_MEND
        )
    examples, answers = task.encode(payloads), []
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        batch = task.collate(part, [0] * len(part))
        said = session.run(expected, {name: batch[name].numpy() for name in names})
        answers.append(np.concatenate(said, axis=1))
    return np.concatenate(answers)


def check_answers(task: Task, path: Path, payloads: Sequence[Payload], expected: Answers, tolerance: float) -> None:
    """Hold the file against the eager model's answers (n, k), each row alone and all padded together.

    Raises:
        WrongExport: where a logit differs by more than the tolerance, or is not a number.
    """
    allowed = tolerance * max(1.0, float(np.abs(expected).max()))
    for size in (1, len(payloads)):
        answers = file_answers(task, path, payloads, size)
        difference = float(np.abs(answers - expected).max()) if answers.shape == expected.shape else float("nan")
        if not difference <= allowed:
            raise WrongExport(
                f"in batches of {size} the exported file's logits differ from the trained model's by {difference:.3g}; "
                f"{allowed:.3g} is allowed",
                remedy=_MEND,
            )
