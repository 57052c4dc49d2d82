"""49: trains what it ships. The effect is held against a mutation without the straight-through gradient."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.catalogue import CATALOGUE
from engine.checkpoint import Snapshots
from engine.errors import InvalidPlan
from engine.evaluate import METRICS
from engine.events import Listed, Warned
from engine.export import file_answers
from engine.inference import eager_answers
from engine.plan import Plan
from engine.prepare import begin
from engine.quantized import in_float, plain_state, ranges_of, setting_of
from engine.run import Run
from engine.spec import Spec
from tests.engine.tiny_run import text_run, trained

QAT = "quantization_aware_training"


def refused(*instructions: Any) -> str:
    spec = Spec.model_validate({"task": "text_classification", "dataset": "none", "instructions": instructions})
    with pytest.raises(InvalidPlan) as caught:
        Plan.of(spec, {"pretrained"})
    return str(caught.value)


def test_the_exported_file_is_what_was_trained(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [QAT], count=200, epochs=3, learning_rate=5e-3), tmp_path)
    path = run.plan.slot("exporter").exporter(run, run.model, tmp_path)
    payloads = list(run.data.train.payloads)
    expected = eager_answers(run.task, run.model, run.data.examples["train"])
    found = file_answers(run.task, path, payloads, 1)
    step = max(float(one.high - one.low) for one in ranges_of(run.model).values()) / 255
    assert np.abs(found - expected).max() <= step
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995


def test_it_learns_under_four_bits_and_not_without_the_straight_through_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = [{"name": QAT, "weight_bits": 4, "keep": []}]
    losses = {}
    for name in ("straight", "cut"):
        if name == "cut":
            monkeypatch.setattr("engine.quantized.rounded_weight", lambda weight, bits: weight.detach() * 1.0)
        run = text_run(tmp_path / name, choice, count=200, epochs=4, learning_rate=5e-3)
        begin(run, None)
        before = {key: value.clone() for key, value in plain_state(run.model).items() if key.endswith("dense.weight")}
        run = trained(run, tmp_path / name)
        after = plain_state(run.model)
        losses[name] = max(float((after[key] - value).abs().max()) for key, value in before.items())
    assert losses["straight"] > 0.01
    assert losses["cut"] < losses["straight"] / 2  # decay alone moves them


def test_ranges_rest_after_freeze_at(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [{"name": QAT, "freeze_at": 0.5}], count=100, epochs=2), tmp_path)
    total = run.clock.total
    moved = {int(one.updates) for one in ranges_of(run.model).values()}
    assert moved == {total // 2}
    setting = setting_of(run.model)
    assert setting is not None
    assert not setting.observing


def test_rounding_starts_when_it_is_told(tmp_path: Path) -> None:
    run = text_run(tmp_path, [{"name": QAT, "start": 0.5}], count=100, epochs=2)
    begin(run, None)
    setting = setting_of(run.model)
    assert setting is not None
    assert not setting.active
    run.clock.step = run.clock.total // 2
    run.plan.instructions[0].after_step(run)
    assert setting.active


@pytest.mark.parametrize(("start", "ships"), [(0.0, "first"), (0.6, "last")])
def test_the_best_weights_are_chosen_among_those_that_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float, ships: str
) -> None:
    seen: list[torch.Tensor] = []
    scores = iter((1.0, 0.0))

    def falling(run: Run) -> float:
        seen.append(next(iter(run.model.state_dict().values())).clone())
        return next(scores)

    run = text_run(tmp_path, [{"name": "quantization_aware_training", "start": start}], epochs=2, keep="best")
    metric = METRICS[run.spec.metric]
    monkeypatch.setitem(METRICS, run.spec.metric, replace(metric, value=lambda _: falling(run)))
    shipped = next(iter(trained(run, tmp_path).model.state_dict().values()))
    assert torch.equal(shipped, seen[0 if ships == "first" else 1])
    assert not torch.equal(*seen)


def test_a_resumed_run_stands_where_it_stood(tmp_path: Path) -> None:
    choice = [{"name": QAT, "start": 0.3, "freeze_at": 0.6}]
    whole = trained(text_run(tmp_path / "whole", choice, count=100, epochs=2), tmp_path / "whole")
    half = text_run(tmp_path / "half", choice, count=100, epochs=2)
    snapshots = Snapshots(tmp_path / "half", half.sink)

    class Cut(Exception):
        pass

    def cut(run: Any) -> None:
        original(run)
        if run.clock.step == 11:
            run.clock.step, run.clock.window = 12, run.clock.window + 1
            snapshots.write(run)
            raise Cut

    kind = CATALOGUE[49]
    original = kind.after_step.__get__(half.plan.instructions[0], kind)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", lambda self, run: cut(run))
        with pytest.raises(Cut):
            trained(half, tmp_path / "half")
    resumed = trained(text_run(tmp_path / "half", choice, count=100, epochs=2), tmp_path / "half")
    state = whole.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.model.state_dict().items())


def test_the_reference_is_the_same_model_without_rounding(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [{"name": QAT, "weight_bits": 3}]), tmp_path)
    rounded = eager_answers(run.task, run.model, run.data.examples["test"])
    with in_float(run.model):
        plain = eager_answers(run.task, run.model, run.data.examples["test"])
    again = eager_answers(run.task, run.model, run.data.examples["test"])
    assert not np.allclose(plain, rounded)
    assert (again == rounded).all()


def test_fewer_bits_are_told(tmp_path: Path) -> None:
    run = text_run(tmp_path, [{"name": QAT, "weight_bits": 4}])
    begin(run, None)
    assert isinstance(run.sink, Listed)
    assert [event.code for event in run.sink.events if isinstance(event, Warned)] == ["stored_in_eight_bits"]


def test_what_does_not_go_together_is_refused() -> None:
    assert "one number format" not in refused(QAT, "post_training_quantization")
    assert "rounded in training already" in refused(QAT, "post_training_quantization")
    assert "ranges freeze" in refused({"name": QAT, "start": 0.5, "freeze_at": 0.4})
    assert "8 bits" in refused({"name": QAT, "activation": "dynamic", "activation_bits": 4})


def test_widths_come_before_rounding() -> None:
    spec = Spec.model_validate({"task": "text_classification", "dataset": "none", "instructions": [51, 49, 45]})
    assert [one.number for one in Plan.of(spec, {"pretrained"}).instructions] == [45, 49, 51]
