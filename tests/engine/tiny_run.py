"""Tiny runs at their first step or at their end, and what they told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.events import Listed, StepDone
from engine.prepare import begin
from engine.run import Run
from tests.engine.runs import tiny_image_run, tiny_run, trained
from tests.engine.tiny import tiny_image_rows, tiny_text_rows

__all__ = ["begun", "image_run", "text_run", "told", "trained"]


def text_run(folder: Path, instructions: Sequence[Any] = (), *, count: int = 60, **training: Any) -> Run:
    """A text run of `count` rows that has not begun; `folder` takes its base model."""
    return tiny_run(folder, instructions, tiny_text_rows(count), **training)


def image_run(folder: Path, instructions: Sequence[Any] = (), *, count: int = 40, **training: Any) -> Run:
    """A picture run of `count` rows that has not begun."""
    return tiny_image_run(folder, instructions, tiny_image_rows(count), **training)


def begun(run: Run) -> Run:
    """The run with model, optimizer and scaler before its first step."""
    begin(run, None)
    return run


def told(run: Run, name: str) -> list[float]:
    """The values of one panel metric, in the order of the steps."""
    assert isinstance(run.sink, Listed)
    values = [event.values for event in run.sink.events if isinstance(event, StepDone)]
    return [one[name] for one in values if name in one]
