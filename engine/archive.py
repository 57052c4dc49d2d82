"""Files that land whole, ZIPs whose bytes depend on their content alone, and checkpoints. Knows no task.

A checkpoint holds the weights in the Hugging Face layout and nothing of the job, so equal weights give equal bytes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from client.archive import stored_zip
from engine.disk import sync_folder
from engine.pruning import reshape, shapes_of
from engine.quantized import plain_state

SHAPES = "shapes.json"
"""Of a checkpoint whose shapes a configuration cannot say."""


@dataclass(frozen=True)
class Entry:
    """A file by name, hash and size."""

    path: str
    sha256: str
    size_bytes: int


def entry(path: Path) -> Entry:
    """Hash a file."""
    with path.open("rb") as stream:
        return Entry(path.name, hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size)


def land(content: bytes, path: Path) -> Path:
    """Write beside the place, flush to the disk, then rename: the name never stands for half a file."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)
    sync_folder(path.parent)
    return path


def zip_folder(folder: Path, path: Path) -> Path:
    """A ZIP of a flat folder, the same bytes for the same files; lands whole."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w+b") as stream:
        stored_zip(folder.iterdir(), stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)
    sync_folder(path.parent)
    return path


def save_weights(model: nn.Module, folder: Path) -> Path:
    """model.safetensors: the plain weights by their plain names, also of a fake-quantised model; tied ones once."""
    found = plain_state(model)
    kept = set(found) - tied(found)
    state = {name: found[name].detach().cpu().contiguous().clone() for name in kept}
    path = folder / "model.safetensors"
    path.write_bytes(save(dict(sorted(state.items())), metadata={"format": "pt"}))
    return path


def tied(state: Mapping[str, Tensor]) -> set[str]:
    """The names whose tensor an earlier name has already, as transformers leaves them out of a file."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {
        name
        for name, value in state.items()
        if value.numel() and first.setdefault((value.data_ptr(), value.shape), name) != name
    }


def save_shapes(model: nn.Module, untouched: nn.Module, folder: Path, *, always: bool = False) -> None:
    """shapes.json, where the shapes differ from the untouched architecture's, or where that has its own already."""
    shapes = shapes_of(model)
    if always or shapes != shapes_of(untouched):
        (folder / SHAPES).write_text(json.dumps(shapes, indent=1))


def load_checkpoint(folder: Path, untouched: nn.Module) -> nn.Module:
    """Give an untouched architecture the shapes and the weights of a checkpoint's folder."""
    shapes = folder / SHAPES
    if shapes.is_file():
        untouched = reshape(untouched, json.loads(shapes.read_text()))
    state = untouched.state_dict()
    loaded = load_file(folder / "model.safetensors")
    untouched.load_state_dict({**{name: state[name] for name in tied(state)}, **loaded})
    return untouched
