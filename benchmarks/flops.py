"""Counts the arithmetic of training an encoder and measures the rate of plain matrix products beside it."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from engine.ports import Task

_SIDE = 1024
_REPEATS = 20
_PASSES = 3  # forward, and backward for activations and for weights


def training_flops(task: Task, lengths: npt.NDArray[np.int64], batches: Sequence[Sequence[int]]) -> float:
    """Floating-point operations of one pass over the batches: weight products and attention, padding included."""
    config = task.config  # type: ignore[attr-defined]  # of the text task, which this is for
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    total = 0.0
    for rows in batches:
        width = int(lengths[list(rows)].max())
        weights = 4 * hidden * hidden + 2 * hidden * inner
        scores = 2 * hidden * width
        total += _PASSES * 2.0 * len(rows) * width * layers * (weights + scores)
    return total


def product_rate(dtype: torch.dtype) -> float:
    """Floating-point operations a processor second of `torch.mm` on square matrices: the fastest of 3."""
    left, right = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
    torch.mm(left, right)
    rates = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(_REPEATS):
            torch.mm(left, right)
        rates.append(_REPEATS * 2.0 * _SIDE**3 / (time.process_time() - started))
    return max(rates)
