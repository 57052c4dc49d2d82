"""Rows that are taken out of a training and put back: joined, and held by a snapshot. Knows no instruction."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.ports import Payload
from engine.rows import Rows


def without(rows: Rows, numbers: npt.NDArray[np.int64]) -> Rows:
    """The rows but for those of these numbers."""
    return rows.take(np.setdiff1d(np.arange(len(rows)), numbers)).loaded()


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both, in this order."""
    groups = None
    if first.groups is not None and second.groups is not None:
        groups = np.concatenate([first.groups, second.groups])
    return replace(
        first,
        payloads=[*first.payloads, *second.payloads],
        ids=np.concatenate([first.ids, second.ids]),
        labels=np.concatenate([first.labels, second.labels]),
        splits=np.concatenate([first.splits, second.splits]),
        groups=groups,
        shards=np.concatenate([first.shards, second.shards]),
    )


def stored(payload: Payload) -> str | Tensor:
    """A text or a picture as a snapshot can hold it."""
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8) if isinstance(payload, bytes) else str(payload)


def restored(value: str | Tensor) -> Payload:
    """The payload that was stored."""
    return value if isinstance(value, str) else bytes(value.numpy().tobytes())
