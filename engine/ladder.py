"""The compression ladder: score, bytes and latency of the model before and after each step. Knows no instruction."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.archive import tied
from engine.evaluate import METRICS
from engine.inference import eager_answers
from engine.ports import Answers
from engine.quantized import in_float
from engine.run import Run

_TIMED_ROWS = 16
_WARM = 2


@dataclass(frozen=True)
class Rung:
    """One state of the model on its way to the file; latency of one row in milliseconds, in PyTorch on one thread."""

    name: str
    score: float
    bytes: int
    latency_ms: float


def climb(
    run: Run, name: str, model: nn.Module, answers: Answers | None = None, below: Answers | None = None
) -> Answers:
    """Measure the model as it stands, and keep the rung for the report; gives its answers on the test rows.

    On the processor, where the file is measured, to the last digit.

    Args:
        answers: these, where somebody has them already: a language model takes minutes for them.
        below: those of the rung below: a step that changes neither answers nor bytes is no rung.
    """
    model.to("cpu").eval()
    if answers is None:
        answers = eager_answers(run.task, model, run.data.examples["test"])
    stands, size = run.state("ladder").setdefault("rungs", []), weight_bytes(model)
    if below is not None and size == stands[-1]["bytes"] and np.array_equal(answers, below, equal_nan=True):
        return answers
    score = METRICS[run.spec.metric].value(run.task.figures(run.spec.metric, answers, run.data.test.labels))
    with in_float(model):  # rounding is simulated: its time is not the model's
        latency = _latency(run, model)
    stands.append(asdict(Rung(name, round(float(score), 6), size, round(latency, 4))))
    return answers


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the weights, each counted once: what two layers share is stored once too."""
    state = model.state_dict()
    again = tied(state)
    return sum(one.numel() * one.element_size() for name, one in state.items() if name not in again)


def rungs(run: Run) -> list[dict[str, Any]]:
    """The rungs so far, in the order of the steps."""
    return list(run.state("ladder").get("rungs", ()))


@torch.no_grad()
def _latency(run: Run, model: nn.Module) -> float:
    """The median over some test rows, each alone, on one thread: that of the file stands beside it."""
    examples, seconds = run.data.examples["test"], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(min(_TIMED_ROWS, len(examples)) + _WARM):
            batch = run.task.collate([examples[number % len(examples)]], [0])
            start = time.perf_counter()
            run.task.forward(model, batch)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return 1e3 * statistics.median(seconds[_WARM:])
