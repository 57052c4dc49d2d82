"""Files that land whole, ZIPs whose bytes depend on their content alone, and checkpoints. Knows no task.

A checkpoint holds the weights in the Hugging Face layout and nothing of the job, so equal weights give equal bytes.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from engine.pruning import reshape, shapes_of
from engine.quantized import plain_state

_EPOCH = (1980, 1, 1, 0, 0, 0)


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
    _sync(path.parent)
    return path


def zip_folder(folder: Path, path: Path, *, compressed: bool) -> Path:
    """A ZIP of a flat folder: sorted names, fixed times and modes; lands whole."""
    part = path.with_name(f".{path.name}.part")
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with part.open("wb") as stream:
        with zipfile.ZipFile(stream, "w", kind, strict_timestamps=True) as archive:
            for file in sorted(folder.iterdir()):
                about = zipfile.ZipInfo(file.name, _EPOCH)
                about.compress_type, about.external_attr, about.create_system = kind, 0o644 << 16, 3
                archive.writestr(about, file.read_bytes())
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)
    _sync(path.parent)
    return path


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_weights(model: nn.Module, folder: Path) -> Path:
    """model.safetensors: the plain weights by their plain names, also of a fake-quantised model."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in plain_state(model).items()}
    path = folder / "model.safetensors"
    path.write_bytes(save(dict(sorted(state.items())), metadata={"format": "pt"}))
    return path


def save_shapes(model: nn.Module, untouched: nn.Module, folder: Path) -> None:
    """shapes.json, where the shapes differ from the untouched architecture's."""
    shapes = shapes_of(model)
    if shapes != shapes_of(untouched):
        (folder / "shapes.json").write_text(json.dumps(shapes, indent=1))


def load_checkpoint(folder: Path, untouched: nn.Module) -> nn.Module:
    """Give an untouched architecture the shapes and the weights of a checkpoint's folder."""
    shapes = folder / "shapes.json"
    if shapes.is_file():
        untouched = reshape(untouched, json.loads(shapes.read_text()))
    untouched.load_state_dict(load_file(folder / "model.safetensors"))
    return untouched
