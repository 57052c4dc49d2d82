"""Reads a safetensors file into NumPy arrays, without the library: a length, a JSON header, then the bytes.

Knows nothing of what the arrays mean.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.errors import BadPackage

Arrays = Mapping[str, npt.NDArray[Any]]

_KINDS = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "U8": np.uint8}
_LENGTH = struct.Struct("<Q")


def read_tensors(path: Path) -> Arrays:
    """Every tensor of the file by name.

    Raises:
        BadPackage: the file is missing or malformed, or holds a number format that no detector has.
    """
    try:
        content = path.read_bytes()
        (length,) = _LENGTH.unpack_from(content)
        header = json.loads(content[_LENGTH.size : _LENGTH.size + length])
        data = content[_LENGTH.size + length :]
        return {name: _array(data, about) for name, about in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise BadPackage(f"cannot read {path}: {error}", remedy="download the model again") from error


def _array(data: bytes, about: Mapping[str, Any]) -> npt.NDArray[Any]:
    start, end = about["data_offsets"]
    return np.frombuffer(data[start:end], dtype=_KINDS[about["dtype"]]).reshape(about["shape"])
