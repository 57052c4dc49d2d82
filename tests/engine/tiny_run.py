"""Runs of tiny models by the engine's own loop, without a process and without files but the snapshots."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.checkpoint import Snapshots
from engine.data import Data
from engine.events import Listed
from engine.interrupt import Interrupt
from engine.plan import Plan
from engine.ports import Task
from engine.prepare import begin
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec
from engine.train import train
from tests.engine.tiny import tiny_image_rows, tiny_image_task, tiny_task, tiny_text_rows


def text_run(
    folder: Path, instructions: Iterable[Any] = (), *, count: int = 60, facts: Iterable[str] = (), **training: Any
) -> Run:
    """A text run that has not begun; `folder` takes its base model."""
    rows = tiny_text_rows(count)
    spec = _spec("text_classification", instructions, training)
    return _run(spec, tiny_task(folder / "base"), rows, {"pretrained", *facts})


def image_run(instructions: Iterable[Any] = (), *, count: int = 40, facts: Iterable[str] = (), **training: Any) -> Run:
    """A picture run that has not begun."""
    rows = tiny_image_rows(count)
    return _run(_spec("image_classification", instructions, training), tiny_image_task(rows), rows, set(facts))


def begun(run: Run) -> Run:
    """The run with model, optimizer and scaler before its first step."""
    begin(run, None)
    return run


def trained(run: Run, folder: Path) -> Run:
    """The run after its training; snapshots lie in `folder`."""
    train(run, Snapshots(folder, run.sink), Interrupt())
    return run


def told(run: Run, name: str) -> list[float]:
    """The values of one panel metric, in the order of the steps."""
    assert isinstance(run.sink, Listed)
    values = [getattr(event, "values", {}) for event in run.sink.events]
    return [one[name] for one in values if name in one]


def _spec(task: str, instructions: Iterable[Any], training: dict[str, Any]) -> Spec:
    body = {"task": task, "dataset": "none", "instructions": list(instructions)}
    return Spec.model_validate({**body, "training": {"epochs": 1, "batch_size": 8, "max_length": 32, **training}})


def _run(spec: Spec, task: Task, rows: Rows, facts: set[str]) -> Run:
    run = Run(spec, Plan.of(spec, facts), Listed())
    run.task, run.data = task, Data(rows.where("train"), rows.where("valid"), rows.where("test"), task)
    return run
