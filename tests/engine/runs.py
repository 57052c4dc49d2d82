"""Whole tiny runs for the engine's tests, without files of data: a spec, rows made by code, the real loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.checkpoint import Snapshots
from engine.data import Data
from engine.events import Listed
from engine.interrupt import Interrupt
from engine.journal import Journal
from engine.plan import Plan
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec
from engine.train import train
from tests.engine.tiny import (
    tiny_image_rows,
    tiny_image_task,
    tiny_pair_rows,
    tiny_pair_task,
    tiny_task,
    tiny_text_rows,
)


def tiny_run(folder: Path, instructions: Sequence[Any] = (), rows: Rows | None = None, **training: Any) -> Run:
    """A text run up to its first step: data folded, task open."""
    given = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 32, **training}
    body = {"task": "text_classification", "dataset": "rows", "instructions": list(instructions), "training": given}
    return _folded(Spec.model_validate(body), rows or tiny_text_rows(80), folder)


def tiny_image_run(folder: Path, instructions: Sequence[Any] = (), rows: Rows | None = None, **training: Any) -> Run:
    """An image run up to its first step."""
    given = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, **training}
    body = {"task": "image_classification", "dataset": "rows", "instructions": list(instructions), "training": given}
    return _folded(Spec.model_validate(body), rows or tiny_image_rows(80), folder)


def tiny_pair_run(folder: Path, instructions: Sequence[Any] = (), rows: Rows | None = None, **training: Any) -> Run:
    """A run over pairs up to its first step."""
    given = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 32, **training}
    body = {"task": "text_image_pairs", "dataset": "rows", "instructions": list(instructions), "training": given}
    return _folded(Spec.model_validate(body), rows or tiny_pair_rows(80), folder)


def _folded(spec: Spec, rows: Rows, folder: Path) -> Run:
    text = spec.task == "text_classification"
    run = Run(spec, Plan.of(spec, {"pretrained"} if text else ()), Listed(), journal=Journal())
    for one in run.plan.on("records"):
        rows = one.records(run, rows)
    for one in run.plan.on("split"):
        rows = one.split(run, rows)
    parts = [rows.where(split) for split in ("train", "valid", "test")]
    train_rows, valid, test = parts if "streamed_records" in run.plan.facts else [part.loaded() for part in parts]
    for one in run.plan.on("training_records"):
        train_rows = one.training_records(run, train_rows)
    if spec.task == "text_image_pairs":
        run.task = tiny_pair_task(folder / "base", train_rows)
    else:
        run.task = tiny_task(folder / "base") if text else tiny_image_task(train_rows)
    run.data = Data(train_rows, valid, test, run.task)
    return run


def trained(run: Run, folder: Path) -> Run:
    """The same run after its training, with snapshots in `folder`."""
    train(run, Snapshots(folder, run.sink), Interrupt())
    return run
