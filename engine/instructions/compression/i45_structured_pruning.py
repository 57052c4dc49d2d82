"""Instruction 45. Knows when to prune and how to recover; what is coupled and what goes is `engine.pruning`'s."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from engine.coupling import Forward, Unfit, Width, followed, widths
from engine.errors import Fault, InvalidPlan
from engine.instruction import ALL_TASKS, COMPRESSES, Instruction
from engine.ladder import climb
from engine.ports import Batch, device_of
from engine.prepare import count_steps, device
from engine.pruning import check_blocks, drop_blocks, kept, macs, prune, reshape, shapes_of
from engine.randomness import generator
from engine.run import Clock, Run, inner_run
from engine.train import again

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

_SCORED_ROWS = 256  # for Taylor scores: some batches suffice to rank (Molchanov et al. 2019)
_TRACED_ROWS = 2


class StructuredPruning(Instruction):
    """Removes whole attention heads, hidden units, channels or layers with all that is coupled to them, then recovers.

    With 49 it acts before the training that rounds: a pretrained base is pruned at once, a net from scratch first
    trains in float for as long as the job does. Without 49 it prunes the trained model and recovers by `recovery_steps`
    of the same plan. Ratios are of the original widths; each iteration scores anew.

    Sound: a dependency graph finds the coupled slices, exact counts rounded to `round_to` say how many stay, topk says
    which. Taylor scores come from a fixed draw of training rows with dropout off. Label outputs and the residual stream
    of an encoder are never cut. The shapes travel in every snapshot and in the stored model.

    Refuses: a ratio that leaves under 8 units or 1 head; a model whose graph cannot be followed, naming the module;
    unmerged adapters where it would act before the training.

    Effect: `parameters_removed`, a share; parameters, multiply-accumulates and heads before and after.
    """

    number = 45
    band = "compression"
    title = "Structured pruning"
    source = "Fang et al. 2023 (DepGraph) section 3; Michel et al. 2019; Molchanov et al. 2019"
    metric = "parameters_removed"
    tasks = ALL_TASKS - {"causal_lm"}
    unserved: ClassVar[Mapping[str, str]] = {
        "causal_lm": "it ships as a Hugging Face folder, whose configuration cannot say widths of single layers"
    }
    kinds = COMPRESSES
    name: Literal["structured_pruning"] = "structured_pruning"

    ratio: float = Field(default=0.3, ge=0.05, le=0.9, description="share of hidden units or channels to remove")
    head_ratio: float = Field(default=0.0, ge=0, le=0.75, description="share of attention heads to remove")
    layers_removed: int = Field(default=0, ge=0, le=256, description="whole encoder layers to remove")
    importance: Literal["l1", "l2", "taylor"] = Field(
        default="taylor", description="what ranks units: magnitudes, or the first-order effect on the loss"
    )
    round_to: Literal[1, 4, 8, 16, 32] = Field(
        default=8, description="widths become multiples of it; 32 where 4-bit blocks follow"
    )
    recovery_steps: int = Field(
        default=200, ge=0, le=10_000, description="steps after pruning; unused where training follows anyway"
    )
    iterations: int = Field(default=1, ge=1, le=10, description="rounds of scoring and pruning on the way to the ratio")

    @field_validator("round_to", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        # To Python True is 1, which a literal takes for the number.
        if isinstance(value, bool):
            raise ValueError("Input should be 1, 4, 8, 16 or 32")
        return value

    @property
    def provides(self) -> frozenset[str]:
        """Other shapes, and perhaps a look at training rows outside the accounted steps."""
        reads = self.importance == "taylor" or self.recovery_steps > 0
        return frozenset({"resized", "reads_training_rows"} if reads else {"resized"})

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """Adapters are merged after the training, so nothing may be cut before it."""
        if {"adapters", "fake_quantized"} <= facts:
            detail = "with fake quantisation it prunes before the training, where the adapters are not merged yet"
            yield Fault(
                "", "unmerged_adapters", detail, "leave low_rank_adaptation (19) or structured_pruning (45) out"
            )

    def further_steps(self, facts: frozenset[str]) -> int:
        """Those of the recovery; under fake quantisation the training itself is one."""
        return 0 if "fake_quantized" in facts else self.recovery_steps

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        """Prune before a training under fake quantisation, or take the shapes of the snapshot."""
        if not _before_training(run):
            if not run.clock.step and "adapters" not in run.plan.facts:  # whose layers are cut once they are merged
                self._fitting(run, model)  # a misfit is told now, not after the training
            return model
        shapes = run.state(self.name).get("shapes")
        if shapes is not None:
            return reshape(model, shapes)
        if run.task.pretrained:
            climb(run, "untrained", model)
        else:
            model = _trained_in_float(run, model)
            climb(run, "trained_in_float", model)
        model = self._pruned(run, model.to(device()), recovery_steps=0)
        climb(run, self.name, model)
        run.state(self.name)["shapes"] = shapes_of(model)
        return model.to(device())

    def compress(self, run: Run, model: nn.Module) -> nn.Module:
        """Prune the trained model and recover, where training is fast."""
        if _before_training(run):
            return model
        return self._pruned(run, model.to(device()), recovery_steps=self.recovery_steps)

    def report(self, run: Run) -> Mapping[str, float]:
        """What came out."""
        effects: Mapping[str, float] = run.state(self.name).get("effects", {})
        return effects

    def _pruned(self, run: Run, model: nn.Module, recovery_steps: int) -> nn.Module:
        """Prune in `iterations` rounds, recovering after each.

        Raises:
            InvalidPlan: where model and parameters do not go together.
        """
        before = _figures(run, model)
        original = self._fitting(run, model)
        try:
            if self.layers_removed:
                self._score(run, model)
                drop_blocks(model, self.layers_removed, self.importance)
                original = widths(model, _forward(run, model))
            for number in range(1, self.iterations + 1):
                self._score(run, model)
                prune(model, _forward(run, model), self._counts(original, number / self.iterations), self.importance)
                model.zero_grad(set_to_none=True)
                steps = recovery_steps * number // self.iterations - recovery_steps * (number - 1) // self.iterations
                model = again(run, model, steps=steps) if steps else model
        except Unfit as error:
            raise InvalidPlan([self._fault(run, error)]) from error
        effects = _change(before, _figures(run, model))
        if not effects["parameters_removed"]:
            run.warn("nothing_pruned", f"a ratio of {self.ratio:g} rounded to {self.round_to} removes nothing here")
        run.state(self.name)["effects"] = effects
        return model

    def _fitting(self, run: Run, model: nn.Module) -> dict[str, Width]:
        """The widths of a model that takes these parameters.

        Raises:
            InvalidPlan: where it does not.
        """
        model.eval()
        try:
            check_blocks(model, self.layers_removed)
            original = widths(model, _forward(run, model))
            self._counts(original, share=1.0)
            if self.head_ratio and not any(width.attention for width in original.values()):
                detail = f"{type(model).__name__} has no attention heads that can be told apart"
                raise Unfit("head_ratio", detail, "set head_ratio to 0")
        except Unfit as error:
            raise InvalidPlan([self._fault(run, error)]) from error
        return original

    def _counts(self, original: Mapping[str, Width], share: float) -> dict[str, int]:
        """How many units each group keeps on the way to the whole ratio."""
        return {
            name: kept(width, share * (self.head_ratio if width.attention else self.ratio), self.round_to)
            for name, width in original.items()
        }

    def _fault(self, run: Run, error: Unfit) -> Fault:
        index = next(i for i, one in enumerate(run.spec.instructions) if one.name == self.name)
        pointer = f"/instructions/{index}" + (f"/{error.parameter}" if error.parameter else "")
        return Fault(pointer, "cannot_prune", error.detail, error.remedy)

    def _score(self, run: Run, model: nn.Module) -> None:
        """Leave the gradient of the mean loss over some training rows in `.grad`, where Taylor scores read it."""
        model.eval()
        if self.importance != "taylor":
            return
        model.zero_grad(set_to_none=True)
        rows = generator(run.spec.training.seed, self.name).permutation(len(run.data.train))[:_SCORED_ROWS].tolist()
        for start in range(0, len(rows), run.spec.training.batch_size):
            batch = _batch(run, rows[start : start + run.spec.training.batch_size], device_of(model))
            with followed(model):
                loss = run.task.losses(run.task.forward(model, batch), batch).sum() / len(rows)
                loss.backward()
        for weight in model.parameters():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)


def _before_training(run: Run) -> bool:
    """Widths come first where the training itself rounds: cutting afterwards would undo what was trained."""
    return "fake_quantized" in run.plan.facts


def _trained_in_float(run: Run, model: nn.Module) -> nn.Module:
    """The job's own training without the instructions that round, for as many steps."""
    rounding = [one.number for one in run.plan.instructions if "fake_quantized" in {*one.provides, *one.needs}]
    inner = inner_run(run, plan=run.plan.without(rounding))
    inner.clock = Clock(seconds=run.clock.seconds)
    trained = again(inner, model, steps=count_steps(inner))
    run.clock.seconds = inner.clock.seconds
    return trained


def _batch(run: Run, rows: Sequence[int], where: torch.device, split: str = "train") -> Batch:
    examples = [run.data.examples[split][i] for i in rows]
    batch = run.task.collate(examples, [int(run.data.rows(split).labels[i]) for i in rows])
    return {name: value.to(where) for name, value in batch.items()}


def _traced(run: Run) -> int:
    return min(_TRACED_ROWS, len(run.data.rows(run.data.traced)))


def _forward(run: Run, model: nn.Module) -> Forward:
    """The logits of the first rows to trace with, the same each time."""
    batch = _batch(run, range(_traced(run)), device_of(model), run.data.traced)
    return lambda traced: run.task.forward(traced, batch)


def _change(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    told = {f"{name}_before": value for name, value in before.items()}
    told |= {f"{name}_after": value for name, value in after.items()}
    return {**told, "parameters_removed": 1 - after["parameters"] / before["parameters"]}


def _figures(run: Run, model: nn.Module) -> dict[str, float]:
    """Parameters, multiply-accumulates a row and, where there are any, heads."""
    model.eval()
    found = {
        "parameters": float(sum(weight.numel() for weight in model.parameters())),
        "macs": macs(model, _forward(run, model)) / _traced(run),
    }
    heads = shapes_of(model)["heads"].values()
    return {**found, "heads": float(sum(heads))} if heads else found
