"""Tiny private runs for the tests of 37: before their first step, and what one backward pass leaves."""

from pathlib import Path
from typing import Any

import torch

from engine.instruction import Instruction
from engine.prepare import begin
from engine.run import Run
from tests.engine.tiny_run import text_run

BOUND = 0.2


def choice(**given: Any) -> dict[str, Any]:
    """37 with numbers for a tiny run."""
    return {"name": "dp_sgd", "steps": 6, "expected_batch": 8, "noise_multiplier": 1.0, "max_grad_norm": BOUND, **given}


def private_run(folder: Path, chosen: list[dict[str, Any]]) -> Run:
    """A run whose batches are 37's own affair."""
    return text_run(folder, chosen, batch_size=32)


def private_begun(folder: Path, **given: Any) -> Run:
    """The run with its model before the first step."""
    run = private_run(folder, [choice(**given)])
    begin(run, None)
    return run


def holder(run: Run) -> Instruction:
    """37 itself."""
    return run.plan.slot("backward")


def trained_weights(run: Run) -> list[torch.nn.Parameter]:
    """The weights in training."""
    return [weight for weight in run.model.parameters() if weight.requires_grad]


def flat_gradient(run: Run) -> torch.Tensor:
    """The gradients of the weights in training, as one vector."""
    weights = trained_weights(run)
    return torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights])


def clipped_sum(run: Run, rows: list[int]) -> torch.Tensor:
    """What backward leaves for these rows, chunk by chunk of `physical_batch`."""
    run.model.zero_grad(set_to_none=True)
    data = run.data
    for start in range(0, len(rows), 3):
        part = rows[start : start + 3]
        batch = run.task.collate([data.examples["train"][i] for i in part], [int(data.train.labels[i]) for i in part])
        holder(run).backward(run, lambda batch=batch: run.task.losses(run.task.forward(run.model, batch), batch), 1.0)
    return flat_gradient(run)
