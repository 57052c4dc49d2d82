"""Reads safetensors files that strangers wrote, with numpy alone: the header within bounds, then the values.

The format is eight bytes with the header's length, a JSON header, and the values end to end. Nothing is trusted: names,
shapes, dtypes and offsets are held against what is expected before a value is read. Knows no model.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import Fault

MOST_HEADER_BYTES = 8 << 20
MOST_TENSORS = 10_000
MOST_DIMENSIONS = 16
MOST_LENGTH = 2**31 - 1
"""Of one dimension: beyond it no file could hold the values."""
METADATA = "__metadata__"
MOST_NAMED = 5
_MOST_DIGITS = 18  # of a number in a header: the time that Python takes to read one grows with their square
WIDTHS: Mapping[str, int] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes a value, by the dtypes that an update may have."""
_NUMPY: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Values = npt.NDArray[np.float64]


class Unreadable(ValueError):
    """The file is no safetensors file that may be read here; says why."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: its dtype's name, its shape, and where its bytes begin in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        """Values."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * WIDTHS[self.dtype]


@dataclass(frozen=True)
class Layout:
    """What is in a file, by name, in the order of the names."""

    tensors: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        """Values of all tensors."""
        return sum(one.count for one in self.tensors.values())

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(one.size for one in self.tensors.values())

    def shapes(self) -> dict[str, dict[str, Any]]:
        """Names, shapes and dtypes as JSON."""
        return {name: {"shape": list(one.shape), "dtype": one.dtype} for name, one in self.tensors.items()}


def read_layout(path: Path, begin: int = 0, end: int | None = None) -> Layout:
    """The layout of the safetensors file in the bytes [begin, end) of `path`.

    Raises:
        Unreadable: where it is none, or its parts do not fit together.
    """
    size = (path.stat().st_size if end is None else end) - begin
    with path.open("rb") as stream:
        stream.seek(begin)
        length = _header_length(stream.read(8), size)
        return _layout(stream.read(length), size, begin)


def _header_length(first: bytes, size: int) -> int:
    length = int.from_bytes(first, "little")
    if size < 8 or not 2 <= length <= min(MOST_HEADER_BYTES, size - 8):
        raise Unreadable("the header's length is not that of a safetensors file")
    return length


def _layout(header: bytes, size: int, begin: int) -> Layout:
    try:
        entries = json.loads(header, parse_int=_integer)
        entries.pop(METADATA, None)
        found = {storable(name): _tensor(entry) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable("the header is not that of a safetensors file") from error
    if len(found) > MOST_TENSORS:
        raise Unreadable(f"the file has more than {MOST_TENSORS} tensors")
    data, at = 8 + len(header), 0
    for name, (dtype, shape, offsets) in sorted(found.items(), key=lambda item: item[1][2]):
        width = WIDTHS.get(dtype)
        if width is None:
            raise Unreadable(f"{name[:80]!r} has dtype {dtype[:20]}; an update has {', '.join(WIDTHS)}")
        if offsets != (at, at + math.prod(shape) * width):
            raise Unreadable(f"the bytes of {name[:80]!r} are not where its shape says")
        at = offsets[1]
    if at != size - data:
        raise Unreadable("the file is longer or shorter than its header says")
    tensors = {name: Tensor(dtype, shape, begin + data + offsets[0]) for name, (dtype, shape, offsets) in found.items()}
    return Layout(dict(sorted(tensors.items())))


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number is too long")
    return int(digits)


def storable(name: str) -> str:
    """The name of a tensor, if a file and an answer can hold it.

    Raises:
        ValueError: where it is text that UTF-8 cannot say, or the one name that the format keeps for itself.
    """
    if name == METADATA:
        raise ValueError(f"{METADATA} is no tensor: the format keeps this name for itself")
    name.encode()
    return name


def _tensor(entry: Mapping[str, Any]) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    shape, offsets = entry["shape"], entry["data_offsets"]
    if len(shape) > MOST_DIMENSIONS or len(offsets) != 2:
        raise ValueError("more dimensions than a tensor has, or no offsets")
    if not all(type(one) is int and one >= 0 for one in [*shape, *offsets]) or max(shape, default=0) > MOST_LENGTH:
        raise ValueError("no shape or no offsets, or a dimension beyond any file")
    return str(entry["dtype"]), tuple(shape), (offsets[0], offsets[1])


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Fault]:
    """How one file's names, shapes and dtypes (see `Layout.shapes`) differ from those expected."""
    faults = []
    for what, names in (
        ("lacks", [name for name in expected if name not in found]),
        ("has a tensor that is not expected:", [name for name in found if name not in expected]),
    ):
        if names:
            shown = ", ".join(name[:80] for name in names[:MOST_NAMED]) + (", and more" if len(names) > 5 else "")
            faults.append(_fault(names[0], f"the update {what} {shown}"))
    for name, wanted in expected.items():
        if name in found and found[name] != wanted:
            said, was = _said(wanted), _said(found[name])
            faults.append(_fault(name, f"{name[:80]} should be {said} and is {was}"))
    return faults[:20]


def _said(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['dtype']} of shape {tensor['shape']}"


def _fault(name: str, detail: str) -> Fault:
    pointer = "/" + name[:80].replace("~", "~0").replace("/", "~1")
    return Fault(pointer, "wrong_tensor", detail, "send the tensors of the round's base, by its names")


class Reader:
    """Reads the values of files of one layout into one buffer, file after file: memory does not grow with them."""

    def __init__(self, layout: Layout) -> None:
        self._shapes = layout.shapes()
        self._values: Values = np.empty(layout.count, dtype=np.float64)
        self._raw = np.empty(0, np.uint8)
        self._seen: tuple[int, bytes] | None = None
        self._stretches: list[tuple[Tensor, int]] = []

    def read(self, path: Path) -> Values:
        """All values of a file in the order of the names, as float64; the next call uses the buffer again.

        Raises:
            Unreadable: where it is none of the layout's.
        """
        raw = self._bytes_of(path)
        header = raw[8 : 8 + _header_length(raw[:8].tobytes(), len(raw))].tobytes()
        if self._seen != (len(raw), header):  # size and header are all that a layout follows from
            layout = _layout(header, len(raw), 0)
            if layout.shapes() != self._shapes:
                raise Unreadable("the file has other tensors than are expected")
            self._seen, self._stretches = (len(raw), header), stretches(layout)
        for one, at in self._stretches:
            self._values[at : at + one.count] = as_floats(raw[one.start : one.start + one.size], one.dtype)
        return self._values

    def _bytes_of(self, path: Path) -> npt.NDArray[np.uint8]:
        """A whole file, in a buffer that is as large as the largest so far."""
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > len(self._raw):
                self._raw = np.empty(size, np.uint8)
            raw = self._raw[:size]
            if stream.readinto(raw.data) != size:
                raise Unreadable("the file became shorter while it was read")
        return raw


def stretches(layout: Layout) -> list[tuple[Tensor, int]]:
    """What can be read at once: tensors, each with the number of its first value in the order of the names.

    Neighbours in this order that have one dtype and are neighbours in the file too stand as one.
    """
    found: list[tuple[Tensor, int]] = []
    at = 0
    for one in layout.tensors.values():
        last, first = found[-1] if found else (one, at)
        if found and last.dtype == one.dtype and last.start + last.size == one.start:
            found[-1] = Tensor(one.dtype, (last.count + one.count,), last.start), first
        else:
            found.append((one, at))
        at += one.count
    return found


def as_floats(raw: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    """The values of little-endian bytes; bfloat16 as float32, of which it is the upper half."""
    values = raw.view(_NUMPY[dtype]) if raw.ctypes.data % WIDTHS[dtype] == 0 else raw.copy().view(_NUMPY[dtype])
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def all_finite(path: Path, layout: Layout, at_a_time: int = 1 << 20) -> bool:
    """Whether every value of a file is a finite number; reads a part at a time."""
    with path.open("rb") as stream:
        for one in layout.tensors.values():
            stream.seek(one.start)
            left = one.size
            while left > 0:
                raw = np.frombuffer(stream.read(min(at_a_time, left)), dtype=np.uint8)
                if not len(raw) or not np.isfinite(as_floats(raw, one.dtype)).all():
                    return False
                left -= len(raw)
    return True


def packed(values: Values, layout: Layout) -> bytes:
    """A safetensors file with these values, in the order of the names, by the layout's shapes and dtypes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    at = offset = 0
    for name, one in layout.tensors.items():
        part = _as_bytes(values[at : at + one.count], one.dtype)
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        at, offset = at + one.count, offset + len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _as_bytes(values: Values, dtype: str) -> bytes:
    if dtype == "BF16":
        # To the nearest, ties to even, as hardware rounds.
        bits = values.astype("<f4").view("<u4").astype(np.uint64)
        return bytes(
            ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype("<u2").tobytes()
        )
    return bytes(values.astype(_NUMPY[dtype]).tobytes())


def layout_of(shapes: Mapping[str, Mapping[str, Any]]) -> Layout:
    """The layout that names, shapes and dtypes describe, without a file."""
    return Layout({name: Tensor(str(one["dtype"]), tuple(one["shape"]), 0) for name, one in sorted(shapes.items())})
