"""The formats of the file that ships, and the only list of them: who writes each, and which files hold its weights.

The number format of an ONNX file follows from the plan; an instruction that rounds holds the slot `exporter` itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import nn

from engine.export import export_onnx
from engine.exporters import adapter, gguf
from engine.exporters.hugging_face import write_hugging_face
from engine.run import Run

Writer: TypeAlias = Callable[[Run, nn.Module, Path], Path]
"""From a run and its model to the weights' file in a folder."""


@dataclass(frozen=True)
class Format:
    """`file`: what the writer hands back; `weights`: patterns of the files that count as the model's own bytes.

    `exact`: the weights are written as they are, so the file must answer as the model does. `whole`: nothing else is
    needed to run it.
    """

    file: str
    weights: tuple[str, ...]
    write: Writer
    exact: bool = True
    whole: bool = True


def _onnx(run: Run, model: nn.Module, folder: Path) -> Path:
    return export_onnx(run.task, model, run.data.sample_payloads(), folder / "model.onnx")


FORMATS: Mapping[str, Format] = {
    "onnx": Format("model.onnx", ("model.onnx*",), _onnx),
    "safetensors": Format("model.safetensors", ("model.safetensors",), write_hugging_face),
    "gguf": Format(gguf.FILE, (gguf.FILE,), gguf.write_f16, exact=False),
    "gguf-q8_0": Format(gguf.FILE, (gguf.FILE,), gguf.write_q8_0, exact=False),
    "peft": Format(adapter.FILE, (adapter.FILE,), adapter.write_adapter, whole=False),
}
