"""Instruction 24. Knows nothing of losses: the loop divides by the items of the window that is made here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from engine.instruction import ALL_TASKS, Instruction, Window
from engine.ports import Batch
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec


class GradientAccumulation(Instruction):
    """Makes one optimizer step from several batches: a large batch in little memory, with the same gradient.

    Sound: windows are merged and the loop divides every chunk's loss sum by the items of the whole window, so the
    gradient is that of one large batch also where chunks are unequal; the last window is divided by its own items. A
    window with a fixed divisor passes untouched. Batch norm still sees the chunks one by one.

    Refuses: pairs of text and image, by task: a contrastive loss sees only the negatives of its own chunk.

    Effect: none on accuracy at an equal effective batch; activations take the memory of one chunk.
    `effective_batch_items` is the mean number of items a step.
    """

    number = 24
    band = "gradients"
    title = "Gradient accumulation"
    source = "Li et al. 2020 (arXiv 2006.15704) section 3.2.4; Gao et al. 2021 (arXiv 2101.06983)"
    metric = "effective_batch_items"
    tasks = ALL_TASKS - {"text_image_pairs"}
    name: Literal["gradient_accumulation"] = "gradient_accumulation"

    steps: int = Field(default=4, ge=1, le=1024, description="batches a step, where target_items says nothing")
    target_items: int | None = Field(
        default=None, ge=1, le=100_000_000, description="fill each step with at least so many items instead"
    )

    @property
    def provides(self) -> frozenset[str]:
        """A step may hold several batches."""
        return frozenset({"window"})

    def batches_a_step(self, spec: "Spec") -> int:
        """Batches that fill a step; a row of a language model is taken for as long as it may be."""
        if self.target_items is None:
            return self.steps
        items = spec.training.max_length if spec.task == "causal_lm" else 1
        return math.ceil(self.target_items / (spec.training.batch_size * items))

    def windows(self, run: Run, windows: Iterator[Window]) -> Iterator[Window]:
        """Merge neighbours until a step is full."""
        waiting: list[tuple[int, ...]] = []
        items = 0
        for window in windows:
            if window.divisor is not None:
                if waiting:  # order is kept: what came before steps before
                    yield Window(tuple(waiting))
                    waiting, items = [], 0
                yield window
                continue
            for chunk in window.chunks:
                waiting.append(chunk)
                items += _items(run, chunk) if self.target_items else 0
                full = items >= self.target_items if self.target_items else len(waiting) >= self.steps
                if full:
                    yield Window(tuple(waiting))
                    waiting, items = [], 0
        if waiting:
            yield Window(tuple(waiting))

    def batch(self, run: Run, batch: Batch, row_ids: Sequence[int], epoch: int) -> Batch:
        """Count the items on their way."""
        state = run.state(self.name)
        state["items"] = state.get("items", 0) + run.task.items(batch)
        return batch

    def gradients(self, run: Run) -> None:
        """Count the windows."""
        state = run.state(self.name)
        state["windows"] = state.get("windows", 0) + 1

    def report(self, run: Run) -> Mapping[str, float]:
        """The mean number of items a step."""
        state = run.state(self.name)
        return {"effective_batch_items": state["items"] / state["windows"]} if state.get("windows") else {}


def _items(run: Run, chunk: Sequence[int]) -> int:
    """The items of a chunk as the task counts them: a token that carries no loss is none."""
    examples, labels = run.data.examples["train"], run.data.train.labels
    return run.task.items(run.task.collate([examples[i] for i in chunk], [int(labels[i]) for i in chunk]))
