"""The reader that takes file after file: a header is known again, and a file is read by its own header all the same."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.tensorfile import Reader, Tensor, Unreadable, layout_of, read_layout, stretches

SHAPES = {name: {"shape": [3], "dtype": "F32"} for name in ("a", "b", "c")}


def write(path: Path, order: Sequence[str], values: Mapping[str, Sequence[float]], dtype: str = "F32") -> Path:
    """A safetensors file whose tensors of three values lie in this order."""
    width = {"F32": "<f4", "F64": "<f8"}[dtype]
    parts = {name: np.array(values[name], dtype=width).tobytes() for name in order}
    header, at = {}, 0
    for name, part in parts.items():
        header[name] = {"dtype": dtype, "shape": [3], "data_offsets": [at, at + len(part)]}
        at += len(part)
    text = json.dumps(header, sort_keys=True).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts.values()))
    return path


VALUES = {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0], "c": [7.0, 8.0, 9.0]}


def test_a_file_in_another_order_is_read_by_its_own_header(tmp_path: Path) -> None:
    reader = Reader(layout_of(SHAPES))
    first = write(tmp_path / "first", "abc", VALUES)
    other = write(tmp_path / "other", "cab", VALUES)
    assert first.stat().st_size == other.stat().st_size
    for file in (first, other, other, first):
        assert reader.read(file).tolist() == list(range(1, 10))


def test_a_smaller_file_after_a_larger_one_is_read_alone(tmp_path: Path) -> None:
    reader = Reader(layout_of(SHAPES))
    spaced = tmp_path / "spaced"
    save_file({name: np.array(one, np.float32) for name, one in VALUES.items()}, spaced, metadata={"note": "x" * 999})
    assert reader.read(spaced).tolist() == list(range(1, 10))
    assert reader.read(write(tmp_path / "short", "bca", VALUES)).tolist() == list(range(1, 10))
    assert reader.read(spaced).tolist() == list(range(1, 10))


@pytest.mark.parametrize("content", [b"", b"1234567", b"\x10" + bytes(7) + b"{}", None])
def test_what_is_no_such_file_is_refused_after_a_good_one(tmp_path: Path, content: bytes | None) -> None:
    reader = Reader(layout_of(SHAPES))
    reader.read(write(tmp_path / "good", "abc", VALUES))
    bad = tmp_path / "bad"
    if content is None:
        write(bad, "abc", VALUES, dtype="F64")
    else:
        bad.write_bytes(content)
    with pytest.raises(Unreadable):
        reader.read(bad)
    good = write(tmp_path / "good", "cba", VALUES)
    assert reader.read(good).tolist() == list(range(1, 10))
    cut = tmp_path / "cut"
    cut.write_bytes(good.read_bytes()[:-4])
    with pytest.raises(Unreadable, match="longer or shorter"):
        reader.read(cut)


def test_neighbours_are_read_as_one(tmp_path: Path) -> None:
    begin = min(one.start for one in read_layout(write(tmp_path / "abc", "abc", VALUES)).tensors.values())
    assert stretches(read_layout(tmp_path / "abc")) == [(Tensor("F32", (9,), begin), 0)]
    apart = stretches(read_layout(write(tmp_path / "cab", "cab", VALUES)))
    assert apart == [(Tensor("F32", (6,), begin + 12), 0), (Tensor("F32", (3,), begin), 6)]
    mixed = layout_of({**SHAPES, "b": {"shape": [3], "dtype": "F64"}})
    assert [at for _, at in stretches(mixed)] == [0, 3, 6]
