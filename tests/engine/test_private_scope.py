"""What a private run trains, part by part, and what is refused because epsilon would not cover it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.catalogue import CATALOGUE
from engine.errors import InvalidPlan
from engine.plan import Plan
from engine.prepare import begin
from engine.run import Run
from engine.spec import Spec
from tests.engine.private_runs import BOUND, choice, clipped_sum, holder, private_run, trained_weights
from tests.engine.tiny_lm import tiny_lm_run
from tests.engine.tiny_run import text_run, told, trained


@pytest.mark.parametrize(
    ("scope", "moves"),
    [("head", {"classifier", "pooler"}), ("bias", {"classifier", "pooler", "bias"}), ("full", {"weight"})],
)
def test_a_scope_trains_its_part_and_nothing_else(tmp_path: Path, scope: str, moves: set[str]) -> None:
    run = private_run(tmp_path, [choice(scope=scope)])
    fresh = run.task.build().state_dict()
    begin(run, None)
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    trained(run, tmp_path / "run")
    moved = {name for name, weight in run.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved
    assert set(before) == set(fresh)
    if scope != "full":
        assert all(moves & set(name.split(".")) for name in moved)
    else:
        assert len(moved) > 0.9 * len(before)


def _one_by_one(run: Run, rows: list[int]) -> torch.Tensor:
    """The clipped sum by a pass for each row alone."""
    data, total = run.data, torch.zeros(sum(weight.numel() for weight in trained_weights(run)))
    for row in rows:
        batch = run.task.collate([data.examples["train"][row]], [int(data.train.labels[row])])
        loss = run.task.losses(run.task.forward(run.model, batch), batch).sum()
        own = torch.autograd.grad(loss, trained_weights(run), allow_unused=True)
        parts = [torch.zeros_like(w) if g is None else g for w, g in zip(trained_weights(run), own, strict=True)]
        flat = torch.cat([part.flatten() for part in parts])
        total += flat * min(1.0, BOUND / float(flat.norm()))
    return total


def test_adapters_are_clipped_example_by_example(tmp_path: Path) -> None:
    run = private_run(tmp_path, [{"number": 19, "rank": 4}, choice()])
    begin(run, None)
    run.model.eval()
    names = [name for name, weight in run.model.named_parameters() if weight.requires_grad]
    assert all("lora_" in name or "modules_to_save" in name for name in names)
    torch.testing.assert_close(clipped_sum(run, [0, 1, 2, 3]), _one_by_one(run, [0, 1, 2, 3]), rtol=1e-4, atol=1e-5)


def test_a_language_model_is_trained_through_its_adapters(tmp_path: Path) -> None:
    """A long text is cut into several rows of one id: only its first part is ever drawn."""
    assert _faults(37, task="causal_lm", facts=("pretrained",)) == ["/instructions/0 missing_need"]
    chosen = [{"number": 19, "rank": 2}, choice(physical_batch=4)]
    run = tiny_lm_run(tmp_path, chosen, batch_size=32, max_length=8)
    begin(run, None)
    run.model.eval()
    torch.testing.assert_close(clipped_sum(run, [0, 1, 2]), _one_by_one(run, [0, 1, 2]), rtol=1e-4, atol=1e-5)
    ids = run.data.train.ids
    drawn_from = list(holder(run).order(run, 0))
    assert len(drawn_from) == len(set(ids.tolist())) < len(ids)
    trained(run, tmp_path / "run")
    assert run.clock.step == 6
    assert told(run, "epsilon")
    assert not told(run, "train_loss")


def _faults(*chosen: Any, task: str = "text_classification", facts: tuple[str, ...] = (), **fields: Any) -> list[str]:
    spec = Spec.model_validate({"task": task, "dataset": "none", **fields, "instructions": chosen})
    try:
        Plan.of(spec, facts)
    except InvalidPlan as refused:
        return [f"{fault.pointer} {fault.code}" for fault in refused.faults if fault.remedy]
    return []


@pytest.mark.parametrize(
    ("chosen", "fields", "fault"),
    [
        ({"epsilon": 3.0, "noise_multiplier": 1.0}, {}, "/instructions/0/epsilon one_of_two"),
        ({"steps": 5}, {"training": {"max_steps": 9}}, "/instructions/0/steps one_of_two"),
        ({"expected_batch": 9}, {"training": {"batch_size": 9}}, "/instructions/0/expected_batch one_of_two"),
        ({}, {"training": {"keep": "best"}}, "/instructions/0 private_choice"),
        ({}, {"include_inputs": True}, "/instructions/0 rows_in_the_receipt"),
        ({}, {"answers": True}, "/instructions/0 rows_in_the_answers"),
        ({}, {"compare": "untreated"}, "/instructions/0 second_training"),
        ({"epsilon": 3.0}, {"limits": {"max_epsilon": 1.0}}, "/instructions/0/epsilon limit_missed"),
        ({"scope": "lora"}, {}, "/instructions/0/scope missing_need"),
    ],
)
def test_what_breaks_the_guarantee_is_refused(chosen: dict[str, Any], fields: dict[str, Any], fault: str) -> None:
    assert _faults({"name": "dp_sgd", **chosen}, **fields) == [fault]


def test_a_plain_request_is_not(tmp_path: Path) -> None:
    assert _faults(37, training={"epochs": 9, "batch_size": 64}) == []
    assert _faults({"name": "dp_sgd", "steps": 9, "expected_batch": 64}, limits={"max_epsilon": 8.0}) == []
    assert _faults(37, answers="kept") == []


def test_test_rows_of_a_data_set_of_their_own_may_be_told_of() -> None:
    apart = {"train": "private", "test": "public"}
    assert _faults(37, dataset=apart, answers=True, include_inputs=True) == []
    assert _faults(40, answers=True, include_inputs=True) == [
        "/instructions/0 rows_in_the_receipt",
        "/instructions/0 rows_in_the_answers",
    ]


@pytest.mark.parametrize("fact", ["couples_rows", "reads_training_rows", "mixed_labels", "window", "loss_scaling"])
def test_refusals_are_by_fact(fact: str) -> None:
    assert _faults(37, facts=(fact,)) == ["/instructions/0 excluded"]


def test_what_reads_training_rows_is_refused_with_the_reason() -> None:
    for number, kind in CATALOGUE.items():
        one = kind.model_validate({"name": kind.model_fields["name"].default})
        if "text_classification" in kind.tasks and one.provides & {"couples_rows", "reads_training_rows"}:
            assert any(fault.endswith("excluded") for fault in _faults(number, 37)), number


def test_a_layer_without_own_gradients_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = private_run(tmp_path, [choice(scope="full")])
    build = run.task.build

    def with_batch_norm() -> torch.nn.Module:
        model = build()
        model.add_module("mixer", torch.nn.BatchNorm1d(3))
        return model

    monkeypatch.setattr(run.task, "build", with_batch_norm)
    with pytest.raises(InvalidPlan, match="mixer is batch norm"):
        begin(run, None)


@pytest.mark.parametrize(("scope", "rate"), [(None, 2e-2), ("head", 2e-2), ("bias", 1e-3), ("full", 1e-4)])
def test_few_weights_learn_at_a_higher_rate_than_a_whole_model(tmp_path: Path, scope: str | None, rate: float) -> None:
    run = text_run(tmp_path, [choice(scope=scope)], batch_size=32, learning_rate=None)
    begin(run, None)
    assert run.optimizer.param_groups[0]["initial_lr"] == pytest.approx(rate)
    assert run.spec.resolved(pretrained=True)["training"]["learning_rate"] == pytest.approx(rate)
