"""What a hook may touch: one run of one plan. Knows nothing of files, processes or what an instruction does with it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.curves import keep
from engine.data import Data
from engine.events import Event, Sink, StepDone, Warned
from engine.guard import is_public_warning, public_figures
from engine.journal import Journal
from engine.ports import Task

if TYPE_CHECKING:  # the plan and the spec hold instructions, which are handed a run: a circle of types only
    from engine.plan import Plan
    from engine.spec import Spec


@dataclass
class Clock:
    """Where a run stands: `step` optimizer steps were taken, `window` windows of `epoch` are behind it.

    `tokens`: of the rows that these steps learned from, as often as they did.
    """

    epoch: int = 0
    window: int = 0
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    trained: bool = False
    tokens: int = 0


@dataclass
class Run:
    """One run, filled in as it goes on: data hooks find spec, plan, sink and memory, later ones the rest too.

    `memory[name]` holds the state of the instruction of that name and travels in every snapshot: tensors, numbers,
    strings, and lists and dictionaries of these. Nothing is drawn privately in a run without a `journal`.
    """

    spec: "Spec"
    plan: "Plan"
    sink: Sink
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    task: Task = field(init=False)
    data: Data = field(init=False)
    model: nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    journal: Journal | None = None
    start: "Start | None" = None

    def note_start(self) -> None:
        """Keep what runs inside this one begin with too; before the `model` folds and before a snapshot comes back."""
        self.start = Start(self.task, copy.deepcopy(self.memory))

    def state(self, name: str) -> dict[str, Any]:
        """The memory of one instruction, made on first use."""
        return self.memory.setdefault(name, {})

    def warn(self, code: str, detail: str) -> None:
        """Tell the listener, and so the receipt, of something that deserves a look; a private run of less."""
        if not is_public_warning(code, self.plan):
            return
        told = self.state("warnings").setdefault("told", [])
        if detail not in told:  # a run that is gone on from may say a thing again
            told.append(detail)
        self.sink.emit(Warned(code=code, detail=detail))

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Tell the listener of figures at a step, and keep them for the report: every figure of a step goes this way.

        Here, and nowhere else, a private run drops what is no business of anyone's.
        """
        values = public_figures(values, self.spec, self.plan)
        if not values:
            return
        keep(self.state("curves"), step, values)
        self.sink.emit(StepDone(step=step, total_steps=self.clock.total, values=values))

    def metric(self, name: str, value: float | torch.Tensor) -> None:
        """Set one of the panel's metrics for the step under way; the loop takes it up."""
        self.state("panel")[name] = value


@dataclass(frozen=True)
class Start:
    """What a run began with: the task that `compress` has not changed yet, and its memory as the data hooks left it."""

    task: Task
    memory: Mapping[str, dict[str, Any]]


def inner_run(outer: Run, *, plan: "Plan | None" = None, task: Task | None = None, data: Data | None = None) -> Run:
    """A run inside another, up to its model; every such run is made here. Without plan, task or data: the outer one's.

    It finds what the data hooks left and has a memory of its own from there on. Its warnings are the outer run's, its
    private draws count towards what that may draw.
    """
    memory = copy.deepcopy(dict(outer.start.memory)) if outer.start is not None else {}
    inner = Run(outer.spec, plan or outer.plan, InnerSink(outer), memory, journal=outer.journal, start=outer.start)
    inner.task, inner.data = task or outer.task, data or outer.data
    return inner


class InnerSink:
    """The sink of a run inside another: its warnings are the outer one's, its metrics nobody's.

    How far it is is told where the outer run counts no steps of its own: those of a compression are a recovery's.
    """

    def __init__(self, outer: Run) -> None:
        self._outer = outer

    def emit(self, event: Event) -> None:
        """Pass on a warning, or how far the run is."""
        if isinstance(event, Warned):
            self._outer.warn(event.code, event.detail)
        elif isinstance(event, StepDone) and not self._outer.clock.total:
            self._outer.sink.emit(replace(event, values={}))
