"""Instruction 45 in a run: what is scored, when it is cut, how it recovers, and what is refused before the training."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import Field
from torch import nn

from engine.errors import InvalidPlan
from engine.events import Event, Listed, Warned
from engine.instruction import Instruction
from engine.instructions.compression.i45_structured_pruning import StructuredPruning
from engine.ladder import rungs
from engine.plan import Plan
from engine.pruning import shapes_of
from engine.run import Run
from tests.engine.runs import tiny_pair_run
from tests.engine.tiny_run import begun, image_run, text_run, told, trained

NAME = "structured_pruning"


def _listed(run: Run) -> list[Event]:
    assert isinstance(run.sink, Listed)
    return run.sink.events


def test_taylor_scores_neither_draw_nor_depend_on_what_was_drawn(tmp_path: Path) -> None:
    shapes, states = [], []
    for seed in (1, 2):
        run = begun(text_run(tmp_path))
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        one = StructuredPruning(ratio=0.3, head_ratio=0.25, recovery_steps=0)
        model = one.compress(run, run.model)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(weight.grad is None for weight in model.parameters())
        shapes.append(shapes_of(model))
        states.append(model.state_dict())
    assert shapes[0] == shapes[1]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_trained_model_is_pruned_reported_and_recovers(tmp_path: Path) -> None:
    chosen = {"name": NAME, "ratio": 0.75, "head_ratio": 0.75, "importance": "l1", "iterations": 2}
    run = trained(text_run(tmp_path, [{**chosen, "recovery_steps": 0}], epochs=4, learning_rate=3e-3), tmp_path)
    taken = len(told(run, "train_loss"))
    losses = {}
    for steps in (0, 30):
        one = StructuredPruning.model_validate({**chosen, "recovery_steps": steps})
        model = one.compress(run, copy.deepcopy(run.model)).eval()
        effects = one.report(run)
        assert len(told(run, "train_loss")) == taken, "recovery steps are not those of the job"
        batch = run.task.collate(list(run.data.examples["train"][:48]), run.data.train.labels.tolist())
        losses[steps] = float(run.task.losses(run.task.forward(model, batch), batch).detach().mean())
        assert effects["parameters_after"] == sum(weight.numel() for weight in model.parameters())
        assert effects["parameters_removed"] == 1 - effects["parameters_after"] / effects["parameters_before"] > 0.3
        assert (effects["heads_before"], effects["heads_after"]) == (8, 2)
        assert effects["macs_after"] < 0.6 * effects["macs_before"]
    assert losses[30] < losses[0]


class Rounding(Instruction):
    """Stands in for the instruction that rounds in training: it wraps the pruned layers and says so."""

    number = 49
    band = "quantization_aware_training"
    title = "Rounding"
    source = "none"
    metric = "none"
    name: Literal["rounding"] = "rounding"
    seen: list[int] = Field(default_factory=list)

    @property
    def provides(self) -> frozenset[str]:
        return frozenset({"fake_quantized"})

    @property
    def after(self) -> frozenset[str]:
        return frozenset({"resized"})

    def model(self, run: Run, model: nn.Module) -> nn.Module:
        self.seen.append(sum(weight.numel() for weight in model.parameters()))
        return model

    def after_step(self, run: Run) -> None:
        self.seen.append(0)


def _rounding(run: Run) -> Rounding:
    one = Rounding()
    facts = run.plan.facts | {"fake_quantized"}
    run.plan = Plan((*run.plan.instructions, one), facts)
    return one


@pytest.mark.parametrize("kind", ["text", "image"])
def test_under_fake_quantisation_widths_come_first_and_nothing_is_cut_afterwards(tmp_path: Path, kind: str) -> None:
    run = text_run(tmp_path, [NAME]) if kind == "text" else image_run(tmp_path, [NAME], max_steps=3)
    whole = sum(weight.numel() for weight in run.task.build().parameters())
    rounding = _rounding(run)
    trained(run, tmp_path)
    pruned = sum(weight.numel() for weight in run.model.parameters())
    assert rounding.seen == [pruned, *[0] * run.clock.total], "a float phase does not round"
    assert pruned < whole
    first, cut = rungs(run)
    assert (first["name"], cut["name"]) == ("untrained" if kind == "text" else "trained_in_float", NAME)
    assert first["bytes"] - cut["bytes"] >= 4 * (whole - pruned), "and the statistics of what was cut"
    shapes = shapes_of(run.model)
    assert shapes_of(run.plan.instructions[0].compress(run, run.model)) == shapes
    assert run.plan.instructions[0].report(run)["parameters_before"] == whole

    # A process that comes after finds the shapes in the snapshot and trains on without scoring anew.
    again = text_run(tmp_path, [NAME]) if kind == "text" else image_run(tmp_path, [NAME], max_steps=3)
    _rounding(again)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StructuredPruning, "_score", None)
        trained(again, tmp_path)
    assert all(torch.equal(weight, run.model.state_dict()[name]) for name, weight in again.model.state_dict().items())


def test_misfits_are_told_before_the_training_with_pointer_and_remedy(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], Callable[[list[Any]], Run], str, str]] = [
        (
            {"head_ratio": 0.5},
            lambda chosen: image_run(tmp_path, chosen),
            "/instructions/1/head_ratio",
            "no attention heads",
        ),
        (
            {"layers_removed": 2},
            lambda chosen: text_run(tmp_path, chosen),
            "/instructions/1/layers_removed",
            "2 layers",
        ),
        ({"ratio": 0.9, "round_to": 1}, lambda chosen: text_run(tmp_path, chosen), "/instructions/1/ratio", "6 of 64"),
    ]
    for parameters, made, pointer, words in cases:
        with pytest.raises(InvalidPlan, match=words) as caught:
            begun(made([20, {"name": NAME, **parameters}]))
        assert [fault.pointer for fault in caught.value.faults] == [pointer]
        assert caught.value.faults[0].remedy


def test_nothing_removed_is_a_warning_and_reading_rows_is_a_fact(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path, [{"name": NAME, "ratio": 0.05, "round_to": 32, "recovery_steps": 0}]))
    run.plan.instructions[0].compress(run, run.model)
    assert [event.code for event in _listed(run) if isinstance(event, Warned)] == ["nothing_pruned"]
    assert StructuredPruning().provides == {"resized", "reads_training_rows"}
    assert StructuredPruning(importance="l1", recovery_steps=0).provides == {"resized"}
    faults = list(StructuredPruning().check(run.spec, frozenset({"adapters", "fake_quantized"})))
    assert [fault.code for fault in faults] == ["unmerged_adapters"]
    assert not list(StructuredPruning().check(run.spec, frozenset({"adapters"})))


def test_a_tower_that_is_held_still_is_scored_and_cut_and_stays_still(tmp_path: Path) -> None:
    choice = {"name": "structured_pruning", "ratio": 0.5, "recovery_steps": 2}
    run = trained(tiny_pair_run(tmp_path, [choice]), tmp_path)
    text = run.model.get_submodule("text_model")
    before = sum(weight.numel() for weight in text.parameters())
    (one,) = run.plan.on("compress")
    model = one.compress(run, run.model)
    text = model.get_submodule("text_model")
    assert sum(weight.numel() for weight in text.parameters()) < before
    assert not any(weight.requires_grad for weight in text.parameters())
    assert all(weight.requires_grad for weight in model.get_submodule("vision_model").parameters())
    assert model.get_submodule("vision_model.encoder.stages.0.layers.0.layer.0.convolution").out_channels == 16
    assert one.report(run)["parameters_removed"] > 0.1
