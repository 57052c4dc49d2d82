"""The abstraction: an instruction is one frozen class in one file. Knows no instruction and no task.

Its fields are the parameters of a request, its class attributes the declaration, its overridden methods the behaviour.
The hooks below stand in the order of the loop (see `engine.train`); a method without a body of its own costs nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from engine.accounting import PrivacyEvent
from engine.errors import Fault
from engine.hooks import Phase, each, fold, held, hooks_of, slot
from engine.ports import Answers, Batch, Payload
from engine.rows import Rows
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

TIERS: Mapping[str, str] = {
    "preprocessing": "foundation",
    "augmentation": "foundation",
    "gradients": "efficiency",
    "mixed_precision": "efficiency",
    "adversarial_defence": "safety",
    "privacy": "safety",
    "compression": "deployment",
    "quantization_aware_training": "deployment",
}
ALL_TASKS = frozenset({"text_classification", "causal_lm", "image_classification", "text_image_pairs"})
TEXT_TASKS = frozenset({"text_classification", "causal_lm", "text_image_pairs"})
# The kinds of job that an instruction may act in: it trains, it works on a trained model, or it only looks at the file.
TRAINS: frozenset[str] = frozenset({"train"})
COMPRESSES: frozenset[str] = TRAINS | {"compress"}
AUDITS: frozenset[str] = COMPRESSES | {"evaluate"}


@dataclass(frozen=True)
class Window:
    """The chunks of row numbers that end in one optimizer step.

    `divisor` is fixed where the number of items must not depend on what was drawn; None: the window's own items.
    """

    chunks: tuple[tuple[int, ...], ...]
    divisor: float | None = None


class Exported(Protocol):
    """The file that ships, as its auditors see it."""

    folder: Path

    def answers(self, inputs: Sequence[Payload], batch_size: int = 1) -> Answers:
        """Answers of the exported file for raw inputs, (n, k)."""


class Closure(Protocol):
    """One chunk's forward pass in a fresh precision context: losses (examples,), fp32."""

    def __call__(self) -> Tensor:
        """Run forward and give one value an example."""


class Instruction(BaseModel):
    """The base of the 52. Frozen: the state of a run lives in `run.state(self.name)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    number: ClassVar[int]
    band: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    metric: ClassVar[str]
    tasks: ClassVar[frozenset[str]] = ALL_TASKS
    unserved: ClassVar[Mapping[str, str]] = {}
    """Why it does not serve a task, where there is more to say than that."""
    kinds: ClassVar[frozenset[str]] = TRAINS
    """The kinds of job whose plan may hold it."""
    name: str

    # The declaration. Properties, since a parameter may decide.

    @property
    def provides(self) -> frozenset[str]:
        """The facts that hold of a run with this instruction."""
        return frozenset()

    @property
    def needs(self) -> Mapping[str, str]:
        """Facts or names that somebody must provide, each with the reason."""
        return {}

    @property
    def after(self) -> frozenset[str]:
        """Facts or names whose providers act before this one, where they are there at all."""
        return frozenset(self.needs)

    @property
    def excludes(self) -> Mapping[str, str]:
        """Facts or names that must not be there, each with the reason and the way out."""
        return {}

    @property
    def decides(self) -> Mapping[str, int]:
        """Numbers of `training` that this choice takes over; writing both is a fault."""
        return {}

    @property
    def idle(self) -> frozenset[str]:
        """Overridden hooks that these parameters leave alone."""
        return frozenset()

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Further faults of this choice in this spec; pointers are relative to the instruction, such as "/ratio"."""
        return ()

    def spends(self, spec: "Spec", rows: int) -> Sequence[PrivacyEvent]:
        """The private releases that it plans on so many nominal training rows; pure, so the ledger can reserve them.

        Raises:
            InvalidPlan: where its numbers do not fit that many rows.
        """
        return ()

    # Data.

    @fold
    def records(self, run: Run, rows: Rows) -> Rows:
        """Hand on the rows of every split, lazily where possible."""
        return rows

    @fold
    def split(self, run: Run, rows: Rows) -> Rows:
        """Hand on the rows with the split of each."""
        return rows

    @fold
    def training_records(self, run: Run, rows: Rows) -> Rows:
        """Hand on the training rows: added rows enter here, after the split."""
        return rows

    # The model, and which rows it sees when.

    @fold
    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Hand on the model to be trained: wrap, resize, freeze."""
        return model

    @slot
    def optimizer(self, run: Run) -> torch.optim.Optimizer:
        """Make the optimizer over `run.model`."""
        raise NotImplementedError

    @slot
    def scaler(self, run: Run) -> torch.amp.GradScaler:
        """Make the gradient scaler."""
        raise NotImplementedError

    @slot
    def total_steps(self, run: Run) -> int:
        """How many optimizer steps the run takes from its beginning, told before the first."""
        raise NotImplementedError

    @slot
    def order(self, run: Run, epoch: int) -> Iterator[int]:
        """Give the row numbers of an epoch in the order in which they are seen."""
        raise NotImplementedError

    @slot
    def grouping(self, run: Run, ids: Iterator[int], epoch: int) -> Iterator[Window]:
        """Form batches, each a window of one chunk."""
        raise NotImplementedError

    @fold
    def windows(self, run: Run, windows: Iterator[Window]) -> Iterator[Window]:
        """Hand on windows, merged or cut; one with a fixed divisor passes untouched."""
        return windows

    # One chunk.

    @fold
    def batch(self, run: Run, batch: Batch, row_ids: Sequence[int], epoch: int) -> Batch:
        """Hand on a batch; what is drawn is keyed by (seed, number, epoch, row)."""
        return batch

    @each
    def context(self, run: Run) -> AbstractContextManager[Any]:
        """Give the context of forward and loss; entered anew for each closure."""
        return nullcontext()

    @fold
    def loss(self, run: Run, losses: Tensor, outputs: Tensor, batch: Batch) -> Tensor:
        """Hand on one value an example, (batch,), fp32."""
        return losses

    @slot
    def backward(self, run: Run, closure: Closure, divisor: float) -> Tensor:
        """Sum the closure's losses, divide, go back; give the detached quotient, a scalar."""
        raise NotImplementedError

    # One step.

    @each
    def gradients(self, run: Run) -> None:
        """Change or measure `.grad` in place (unscaled; may be None)."""

    @slot
    def step(self, run: Run) -> bool:
        """Move the weights; False where the step was skipped."""
        raise NotImplementedError

    @slot
    def schedule(self, run: Run, step: int, total: int) -> float:
        """The factor on the base learning rate at optimizer step `step` of `total`: pure, so resume needs no state."""
        raise NotImplementedError

    @each
    def after_step(self, run: Run) -> None:
        """Follow a taken step: averages, ranges, masks."""

    @each
    def after_epoch(self, run: Run, epoch: int) -> None:
        """Follow an epoch, after its validation."""

    # The file that ships.

    @fold
    def trained(self, run: Run, model: nn.Module) -> nn.Module:
        """Hand on the trained model, last wrapped first unwrapped."""
        return model

    @fold
    def compress(self, run: Run, model: nn.Module) -> nn.Module:
        """Hand on a smaller model."""
        return model

    @slot
    def exporter(self, run: Run, model: nn.Module, folder: Path) -> Path:
        """Write the file that ships into `folder` and give its path."""
        raise NotImplementedError

    @each
    def audit(self, run: Run, exported: Exported, eager: nn.Module) -> None:
        """Judge the file that ships beside the eager model."""

    @each
    def report(self, run: Run) -> Mapping[str, float]:
        """The measured effects, for the receipt."""
        return {}

    @each
    def evidence(self, run: Run) -> Mapping[str, Mapping[str, Any]]:
        """What it knows for sections of the receipt, such as {"privacy": {...}}; what one leaves null another fills."""
        return {}

    def artifacts(self, run: Run, folder: Path) -> Mapping[str, Path]:
        """Further folders to be handed over, each as one ZIP, by the kind of artifact; `folder` takes what is made."""
        return {}

    def preprocess(self, run: Run) -> Mapping[str, Any] | None:
        """What inference must replay before the model sees an input, for the artifact's list; None for nothing."""
        return None

    # Derived, never declared.

    @classmethod
    def tier(cls) -> str:
        """The level of the pyramid."""
        return TIERS[cls.band]

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that this choice holds, in loop order."""
        return held(type(self), Instruction, self.idle)

    def parameters(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return self.model_dump(mode="json", exclude={"name"})

    @classmethod
    @cache
    def does(cls) -> str:
        """The first line of the docstring: what it does, in one sentence."""
        return (cls.__doc__ or "").strip().splitlines()[0]


HOOKS: Mapping[str, Phase] = hooks_of(Instruction)
