"""What a job will cost before it runs, marked as an estimate. Knows no instruction by name.

Arithmetic on the size of the model (read off its configuration) and the matrix rate of this machine,
measured once a process by products of some milliseconds. A worker with another processor differs.
"""

import time
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch

from engine.accounting import planned
from engine.errors import InvalidPlan
from engine.models import find, models_dir
from engine.spec import Spec, steps_of
from engine.tasks import TASKS

# Shares of the measured matrix rate that whole training steps reach, and overheads outside them, from benchmarks/.
_SHARE_OF_MATRIX_RATE = 0.6
_PROBED = 768
_FIXED_SECONDS = 25.0
_TRAIN_PASSES, _MEASURED_PASSES = 3, 3  # forward and backward; eager, fp32 file and shipped file
_BYTES_A_WEIGHT_IN_TRAINING = 16  # fp32 weight, gradient and two moments
_GRAPH_BYTES = 800_000
_ROUNDED = frozenset({"quantized", "fake_quantized"})  # facts with which a weight ships as one byte


@runtime_checkable
class MergesBatches(Protocol):
    """An instruction with which a step is made from several batches."""

    def batches_a_step(self, spec: Spec) -> int:
        """How many, at least 1."""


@runtime_checkable
class TrainsOn(Protocol):
    """An instruction that trains a trained model further."""

    def further_steps(self, facts: frozenset[str]) -> int:
        """Its steps in a plan of which these facts hold."""


def estimate(spec: Spec, splits: dict[str, int]) -> dict[str, Any]:
    """Time in seconds, memory and file size in bytes for `splits` rows a split, with what they rest on."""
    base = find(spec.base_model, models_dir(), weights=False)
    cost = TASKS[spec.task].cost(base, spec.training.max_length)
    rows = splits.get("train", 0)
    epochs = spec.training.epochs
    passes = epochs * (_TRAIN_PASSES * rows + splits.get("valid", 0)) + _MEASURED_PASSES * splits.get("test", 0)
    operations = cost.operations * passes
    rate = _matrix_rate() * _SHARE_OF_MATRIX_RATE
    return {
        "estimated": True,
        "basis": f"{cost.parameters:,} weights, {rate / 1e9:.0f} GFLOP/s by a probe on this machine",
        "total_steps": _steps(spec, rows),
        "seconds": round(operations / rate + _FIXED_SECONDS, 1),
        "memory_bytes": cost.parameters * _BYTES_A_WEIGHT_IN_TRAINING
        + cost.activation_bytes * spec.training.batch_size
        + 600_000_000,
        "file_bytes": _file_bytes(spec, cost.parameters),
    }


def _steps(spec: Spec, rows: int) -> int:
    """The steps of a private plan are its draws; where it does not fit the rows, whoever reserves it says so."""
    try:
        draws = sum(event.count for event in planned(spec, rows))
    except InvalidPlan:
        draws = 0
    merged = [one.batches_a_step(spec) for one in spec.instructions if isinstance(one, MergesBatches)]
    return draws or steps_of(rows, spec.training, max(merged, default=1))


@cache
def _matrix_rate() -> float:
    """Operations a second of a square fp32 product on this machine, the best of five."""
    left, right = torch.rand(_PROBED, _PROBED), torch.rand(_PROBED, _PROBED)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - started)
    return float(2 * _PROBED**3 / min(seconds))


def estimate_derived(spec: Spec, scored: int) -> dict[str, Any]:
    """The same for a job that begins with a trained model, by what `scored` rows and its recovery steps cost."""
    cost = TASKS[spec.task].cost(find(spec.base_model, models_dir(), weights=False), spec.training.max_length)
    facts = _facts(spec)
    steps = sum(one.further_steps(facts) for one in spec.instructions if isinstance(one, TrainsOn))
    passes = _TRAIN_PASSES * steps * spec.training.batch_size + _MEASURED_PASSES * scored
    rate = _matrix_rate() * _SHARE_OF_MATRIX_RATE
    return {
        "estimated": True,
        "basis": f"{cost.parameters:,} weights, {rate / 1e9:.0f} GFLOP/s by a probe on this machine",
        "total_steps": steps,
        "seconds": round(cost.operations * passes / rate + _FIXED_SECONDS, 1),
        "memory_bytes": cost.parameters * (_BYTES_A_WEIGHT_IN_TRAINING if steps else 8) + 600_000_000,
        "file_bytes": _file_bytes(spec, cost.parameters) if spec.kind == "compress" else None,
    }


def _file_bytes(spec: Spec, parameters: int) -> int:
    narrow = not _ROUNDED.isdisjoint(_facts(spec))
    return parameters * (1 if narrow else 4) + _GRAPH_BYTES


def _facts(spec: Spec) -> frozenset[str]:
    return frozenset().union(*(one.provides for one in spec.instructions))
