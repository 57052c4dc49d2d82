"""What holds every slot that no instruction holds: the loop that none chosen is already good. Knows no instruction."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from engine.errors import Fault
from engine.exporters import FORMATS
from engine.instruction import Closure, Instruction, Window
from engine.optimizer import decay_groups, rate_factor
from engine.ports import device_of
from engine.randomness import generator
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_WALKED_EPOCHS = 20
_LEAST_PAIRS = 2
_LEAST_SCALE = torch.finfo(torch.float32).tiny  # a scale below it is rounded to itself, or is 0: no step is taken


class Baseline(Instruction):
    """Fused AdamW with decay groups, shuffled rows in batches of one size, a linear rate, a file in fp32."""

    number = 0
    band = "gradients"
    title = "Baseline"
    source = "none"
    metric = "none"
    name: Literal["baseline"] = "baseline"

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """The loss of a pair alone is 0, whatever the model says: nothing would be learned."""
        if spec.task == "text_image_pairs" and spec.training.batch_size < _LEAST_PAIRS:
            detail = "a pair alone in its batch has no wrong partner, so nothing is learned"
            remedy = f"send at least {_LEAST_PAIRS}, better 32 or more"
            yield Fault("/training/batch_size", "too_few_negatives", detail, remedy)

    def optimizer(self, run: Run) -> torch.optim.Optimizer:
        """AdamW, fused; weight decay on matrices alone."""
        training = run.spec.training
        return torch.optim.AdamW(
            decay_groups(run.model, training.weight_decay),
            lr=training.rate(run.task.pretrained, rate_factor(run.plan.facts)),
            betas=(0.9, 0.999),
            fused=True,
        )

    def scaler(self, run: Run) -> torch.amp.GradScaler:
        """A scaler that is switched off passes everything through, so the loop needs no second path."""
        return torch.amp.GradScaler(device_of(run.model).type, enabled=False)

    def total_steps(self, run: Run) -> int:
        """By walking the windows: row numbers only. Beyond some epochs, the steps of an epoch are their mean."""
        epochs = run.spec.training.epochs
        walked = min(epochs, _WALKED_EPOCHS)
        counted = sum(1 for epoch in range(walked) for _ in counted_windows(run, epoch))
        return round(counted * epochs / walked)

    def order(self, run: Run, epoch: int) -> Iterator[int]:
        """A fresh shuffle each epoch."""
        yield from generator(run.spec.training.seed, "order", epoch).permutation(len(run.data.train)).tolist()

    def grouping(self, run: Run, ids: Iterator[int], epoch: int) -> Iterator[Window]:
        """Batches of `batch_size` in the order given; the last may be short.

        A last row alone joins the batch before it: batch norm has no variance of one value.
        """
        size = run.spec.training.batch_size
        waiting = tuple(islice(ids, size))
        while chunk := tuple(islice(ids, size)):
            if len(chunk) == 1 and size > 1:
                waiting += chunk
                break
            yield Window((waiting,))
            waiting = chunk
        if waiting:
            yield Window((waiting,))

    def backward(self, run: Run, closure: Closure, divisor: float) -> Tensor:
        """Sum, divide, go back; nothing to go back for where a chunk is empty."""
        quotient = closure().sum() / divisor
        run.scaler.scale(quotient).backward()
        return quotient.detach()

    def step(self, run: Run) -> bool:
        """Step; a scaler that saw an overflow lowers its scale instead, and one that has sunk too low steps no more."""
        before = run.scaler.get_scale()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        return before >= _LEAST_SCALE and run.scaler.get_scale() >= before

    def schedule(self, run: Run, step: int, total: int) -> float:
        """Linear warm-up over 6 % of the steps, then linear decay to zero."""
        warm = max(1, round(0.06 * total))
        return min((step + 1) / warm, max(0.0, (total - step) / max(1, total - warm)))

    def exporter(self, run: Run, model: nn.Module, folder: Path) -> Path:
        """The fp32 weights in the format of the job."""
        return FORMATS[run.spec.export.written_as].write(run, model, folder)


BASELINE = Baseline()

# The twelve metrics of the panel, in the order in which the panel draws them.
PANEL: tuple[str, ...] = (
    "train_loss",
    "valid_loss",
    "valid_score",
    "learning_rate",
    "gradient_norm",
    "clipped_fraction",
    "loss_scale",
    "examples_per_second",
    "step_seconds",
    "memory_bytes",
    "padding_fraction",
    "epsilon",
)


def counted_windows(run: Run, epoch: int) -> Iterator[Window]:
    """The windows of an epoch, from the order through the grouping and every fold; empty ones are left out."""
    plan = run.plan
    ids = plan.slot("order").order(run, epoch)
    windows = plan.slot("grouping").grouping(run, ids, epoch)
    for one in plan.on("windows"):
        windows = one.windows(run, windows)
    return (window for window in windows if window.divisor is not None or any(window.chunks))
