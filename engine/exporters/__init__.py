"""The formats of the file that ships, and the only list of them: who writes each, and which files hold its weights.

The number format of an ONNX file follows from the plan; an instruction that rounds holds the slot `exporter` itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import nn

from engine.export import export_onnx
from engine.exporters import gguf
from engine.exporters.hugging_face import write_hugging_face
from engine.ports import Payload, Task

Writer: TypeAlias = Callable[[Task, nn.Module, Sequence[Payload], Path], Path]
"""From a task, its model and two payloads to the weights' file in a folder."""


@dataclass(frozen=True)
class Format:
    """`file`: what the writer hands back; `weights`: patterns of the files that count as the model's own bytes.

    `exact`: the weights are written as they are, so the file must answer as the model does.
    """

    file: str
    weights: tuple[str, ...]
    write: Writer
    exact: bool = True


def _onnx(task: Task, model: nn.Module, payloads: Sequence[Payload], folder: Path) -> Path:
    return export_onnx(task, model, payloads, folder / "model.onnx")


FORMATS: Mapping[str, Format] = {
    "onnx": Format("model.onnx", ("model.onnx*",), _onnx),
    "safetensors": Format("model.safetensors", ("model.safetensors",), write_hugging_face),
    "gguf": Format(gguf.FILE, (gguf.FILE,), gguf.write_f16, exact=False),
    "gguf-q8_0": Format(gguf.FILE, (gguf.FILE,), gguf.write_q8_0, exact=False),
}
