"""The loop, on one page: every hook stands at its line, and the order is the point. Knows no instruction and no task.

model -> for window in windows(grouping(order)):
    for chunk in window: batch -> backward(closure: contexts, forward, loss)
    unscale -> gradients -> step -> schedule, after_step
-> trained, in reverse: last wrapped, first unwrapped
"""

import time
from contextlib import ExitStack
from itertools import islice

import torch
from torch import Tensor, nn

from engine.baseline import counted_windows
from engine.checkpoint import Snapshots
from engine.dropout import cheap_draws
from engine.errors import TimeLimit
from engine.events import PhaseStarted, StepDone
from engine.feed import Fed, fed
from engine.interrupt import Interrupt, StopRequested
from engine.optimizer import rate_factor
from engine.panel import Panel
from engine.ports import Batch, device_of
from engine.prepare import arm, begin
from engine.randomness import reseed
from engine.run import Clock, Run, inner_run
from engine.validate import validate


def train(run: Run, snapshots: Snapshots, interrupt: Interrupt) -> None:
    """Train `run.model`, going on from the newest snapshot where there is one.

    Raises:
        StopRequested: after a snapshot.
        Diverged, TimeLimit, DiskFull: as they say.
    """
    run.sink.emit(PhaseStarted(phase="train"))
    begin(run, snapshots.latest())
    if run.clock.step:  # what a lost attempt told last may not have been kept
        run.sink.emit(StepDone(step=run.clock.step, total_steps=run.clock.total, values={}))
    if not run.clock.trained:
        with interrupt.at_boundaries():
            _fit(run, snapshots, interrupt)
            run.clock.trained = True
            snapshots.write(run)  # without it a private run would have drawn for nothing
        if interrupt.requested:  # heard after the last boundary
            raise StopRequested
    for one in reversed(run.plan.on("trained")):
        run.model = one.trained(run, run.model)


def again(run: Run, model: nn.Module, *, steps: int) -> nn.Module:
    """Train `model` for `steps` further steps by the same plan, with memory, clock and optimizer of its own.

    The memory begins as the data hooks left it. The `model` folds are not applied: they have been. No snapshot is
    taken, so a run that is killed repeats it. Its time counts towards the limit of the run, its private draws towards
    what the run may draw.
    """
    inner = inner_run(run)
    inner.model, inner.clock = model, Clock(total=steps, seconds=run.clock.seconds)
    arm(inner)
    for group in inner.optimizer.param_groups:  # a rate of few weights was theirs, and now every weight learns
        group["initial_lr"] /= rate_factor(run.plan.facts)
    while inner.clock.step < steps:
        taken = inner.clock.step
        _epoch(inner, None, Interrupt())
        inner.clock.epoch, inner.clock.window = inner.clock.epoch + 1, 0
        if inner.clock.step == taken:  # every step of a whole epoch was skipped
            break
    run.clock.seconds = inner.clock.seconds
    return inner.model


def _fit(run: Run, snapshots: Snapshots, interrupt: Interrupt) -> None:
    clock = run.clock
    while clock.epoch < run.spec.training.epochs and clock.step < clock.total:
        _epoch(run, snapshots, interrupt)
        started = time.monotonic()
        validate(run)
        for one in run.plan.on("after_epoch"):
            one.after_epoch(run, clock.epoch)
        clock.seconds += time.monotonic() - started
        clock.epoch, clock.window = clock.epoch + 1, 0
    best = run.memory.pop("keep", None)
    if best is not None:
        run.model.load_state_dict(best["weights"])


def _epoch(run: Run, snapshots: Snapshots | None, interrupt: Interrupt) -> None:
    """One epoch, or what is left of it; snapshots None where none are taken."""
    clock, panel = run.clock, Panel(run)
    run.model.train()
    mark = time.monotonic()
    # Only row numbers are walked to skip what was done before: cheap, and the order needs no state.
    for window in fed(run, islice(counted_windows(run, clock.epoch), clock.window, None)):
        values = _window(run, window)
        clock.window += 1
        if values is not None:
            clock.step += 1
            clock.tokens += sum(chunk.tokens for chunk in window.chunks)
            panel.add(values, sum(len(chunk.rows) for chunk in window.chunks))
        mark, before = time.monotonic(), mark
        clock.seconds += mark - before  # the wait for the window too
        if clock.step >= clock.total:
            break
        _boundary(run, snapshots, interrupt, panel)
    panel.tell()


def _window(run: Run, window: Fed) -> dict[str, float | Tensor] | None:
    """Backward over the chunks of a window and one step; its metrics, or None where the step was skipped."""
    plan, clock = run.plan, run.clock
    loss: float | Tensor = 0.0
    run.optimizer.zero_grad(set_to_none=True)
    _set_rate(run, plan.slot("schedule").schedule(run, clock.step, clock.total))
    real: float | Tensor = 0.0
    padded = 0
    for number, chunk in enumerate(window.chunks):
        batch = chunk.batch
        for one in plan.on("batch"):
            batch = one.batch(run, batch, chunk.rows, clock.epoch)
        loss = loss + plan.slot("backward").backward(run, _Closure(run, batch, number), window.divisor)
        mask = batch.get("attention_mask")
        if mask is not None and mask.ndim == 2:  # fp64 counts exactly, and nobody waits for a tensor
            real, padded = real + mask.sum(dtype=torch.float64), padded + mask.numel()
    run.scaler.unscale_(run.optimizer)  # before anything looks at a gradient
    for one in plan.on("gradients"):
        one.gradients(run)
    values: dict[str, float | Tensor] = {
        "train_loss": loss,
        "learning_rate": float(run.optimizer.param_groups[0]["lr"]),
    }
    if "gradient_norm" not in run.state("panel"):
        values["gradient_norm"] = _norm(run.model)
    if run.scaler.is_enabled():
        values["loss_scale"] = run.scaler.get_scale()
    if padded:
        values["padding_fraction"] = 1 - real / padded
    if not plan.slot("step").step(run):  # a skipped step moves neither the rate nor an average
        run.memory.pop("panel", None)
        return None
    for one in plan.on("after_step"):
        one.after_step(run)
    return values


class _Closure:
    """One chunk's forward pass and losses, each call under fresh contexts and with the same draws."""

    def __init__(self, run: Run, batch: Batch, number: int) -> None:
        self._run, self._batch, self._number = run, batch, number

    def __call__(self) -> Tensor:
        """Losses, (examples,), fp32."""
        run, clock = self._run, self._run.clock
        reseed(run.spec.training.seed, "chunk", clock.epoch, clock.window, self._number)
        with ExitStack() as contexts:
            contexts.enter_context(cheap_draws(device_of(run.model)))
            for one in run.plan.on("context"):
                contexts.enter_context(one.context(run))
            outputs = run.task.forward(run.model, self._batch)
            losses = run.task.losses(outputs, self._batch)
            for one in run.plan.on("loss"):
                losses = one.loss(run, losses, outputs, self._batch)
        return losses


def _set_rate(run: Run, factor: float) -> None:
    """Multiply each group's own base rate; some optimizers keep it as a tensor and must go on doing so."""
    for group in run.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(group["initial_lr"] * factor)
        else:
            group["lr"] = group["initial_lr"] * factor


def _norm(model: nn.Module) -> Tensor:
    return torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])


def _boundary(run: Run, snapshots: Snapshots | None, interrupt: Interrupt, panel: Panel) -> None:
    """Between two steps: heed a wish to stop, the time limit, and the clock of the snapshots."""
    limit = run.spec.training.max_seconds
    late = limit is not None and run.clock.seconds > limit
    if snapshots is not None and (interrupt.requested or late or snapshots.due()):
        panel.tell()  # first, so that no snapshot holds a run that has diverged
        snapshots.write(run)
    if interrupt.requested:
        raise StopRequested
    if late:
        raise TimeLimit(
            f"{run.clock.seconds:.0f} s of training went by; the limit is {limit:.0f} s",
            remedy="raise training.max_seconds or lower training.epochs",
        )
