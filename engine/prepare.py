"""Model, optimizer and scaler before the first step, fresh or from a snapshot. Knows no instruction."""

import torch

from engine.checkpoint import Snapshot
from engine.errors import InvalidData
from engine.randomness import reseed
from engine.repeatable import insist_on_order
from engine.run import Run


def begin(run: Run, snapshot: Snapshot | None) -> None:
    """Build model, optimizer and scaler, and put the snapshot's state into them.

    Memory comes back before the `model` folds (a pruned model finds its shapes there), weights after them.
    """
    run.note_start()
    if snapshot:
        run.memory, run.clock = snapshot.memory, snapshot.clock
    reseed(run.spec.training.seed, "model")
    run.model = run.task.build().to(device())
    for one in run.plan.on("model"):
        run.model = one.model(run, run.model)
    arm(run)
    if snapshot:
        run.model.load_state_dict(snapshot.model)
        run.optimizer.load_state_dict(snapshot.optimizer)
        run.scaler.load_state_dict(snapshot.scaler)
    else:
        run.clock.total = count_steps(run)


def device() -> torch.device:
    """Where this process trains: the accelerator that it was given, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arm(run: Run) -> None:
    """Make optimizer and scaler for `run.model`; each group keeps its own base rate, which the schedule multiplies."""
    insist_on_order(run)
    run.optimizer = run.plan.slot("optimizer").optimizer(run)
    for group in run.optimizer.param_groups:
        group["initial_lr"] = float(group["lr"])
    run.scaler = run.plan.slot("scaler").scaler(run)


def count_steps(run: Run) -> int:
    """The optimizer steps of the run, as whoever decides on them says, and no more than `training.max_steps`.

    Raises:
        InvalidData: where there is none.
    """
    steps = run.plan.slot("total_steps").total_steps(run)
    if steps == 0:
        raise InvalidData(
            "there is no training step: no training row is left",
            remedy="give more rows, or drop an instruction that removes them",
        )
    return min(steps, run.spec.training.max_steps or steps)
