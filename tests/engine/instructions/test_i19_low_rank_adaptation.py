"""Instruction 19: only factors and head move, the merged weight is W + s B A by hand, and a merged model learns."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from engine.errors import InvalidData, InvalidPlan
from engine.inference import eager_answers
from engine.instructions.gradients.i19_low_rank_adaptation import LowRankAdaptation
from engine.prepare import begin
from engine.run import Run
from tests.engine.tiny_run import begun, image_run, text_run, told, trained

CHOSEN: dict[str, Any] = {"name": "low_rank_adaptation", "rank": 4, "alpha": 8.0}
VARIANTS = ["lora", "dora", "rslora"]


def _layer(model: torch.nn.Module) -> Any:
    """One adapted layer."""
    return next(module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_step_0_is_the_base_itself(tmp_path: Path, variant: str) -> None:
    plain, ours = begun(text_run(tmp_path / "a")), begun(text_run(tmp_path / "b", [{**CHOSEN, "variant": variant}]))
    rows = plain.data.examples["train"]
    difference = eager_answers(plain.task, plain.model, rows) - eager_answers(ours.task, ours.model, rows)
    assert abs(difference).max() < 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_base_stays_and_factors_and_head_learn(tmp_path: Path, variant: str) -> None:
    run = text_run(tmp_path, [{**CHOSEN, "variant": variant}])
    begin(run, None)
    before = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    learning = {name for name, weight in run.model.named_parameters() if weight.requires_grad}
    assert any("classifier" in name for name in learning)
    assert all("lora_" in name or "modules_to_save" in name for name in learning)
    for _ in range(2):
        batch = run.task.collate([run.data.examples["train"][i] for i in range(8)], [0, 1] * 4)
        run.task.losses(run.task.forward(run.model, batch), batch).sum().backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
    for name, weight in run.model.named_parameters():
        assert torch.equal(weight, before[name]) is (name not in learning), name


@pytest.mark.parametrize(("variant", "scale"), [("lora", 8 / 4), ("rslora", 8 / 2)])
def test_the_merged_weight_is_that_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, scale: float
) -> None:
    expected: list[torch.Tensor] = []
    merge = LowRankAdaptation.trained

    def kept(self: LowRankAdaptation, run: Run, model: torch.nn.Module) -> torch.nn.Module:
        layer = _layer(model)
        factors = (layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()).detach()
        expected.append(layer.base_layer.weight.detach().double() + scale * factors)
        assert float(factors.abs().max()) > 0
        merged = merge(self, run, model)
        expected.append(layer.base_layer.weight.detach())
        return merged

    monkeypatch.setattr(LowRankAdaptation, "trained", kept)
    run = trained(text_run(tmp_path, [{**CHOSEN, "variant": variant}]), tmp_path)
    assert float((expected[0] - expected[1].double()).abs().max()) < 1e-6
    assert run.plan.instructions[0].report(run)["merge_error"] < 1e-5
    assert all(weight.requires_grad for weight in run.model.parameters()), "a later recovery would train nothing"
    assert not any("lora" in name for name, _ in run.model.named_parameters())


def test_the_head_can_stay_frozen_and_targets_be_named(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path, [{**CHOSEN, "train_head": False, "targets": ["query", "value"]}]))
    learning = {name for name, weight in run.model.named_parameters() if weight.requires_grad}
    assert learning
    assert all(".query." in name or ".value." in name for name in learning)
    share = run.plan.instructions[0].report(run)
    assert share["trainable"] == sum(weight.numel() for weight in run.model.parameters() if weight.requires_grad)


def test_adapters_take_ten_times_the_rate(tmp_path: Path) -> None:
    ours = trained(text_run(tmp_path / "a", [CHOSEN], learning_rate=None), tmp_path / "a")
    plain = trained(text_run(tmp_path / "b", learning_rate=None), tmp_path / "b")
    assert max(told(ours, "learning_rate")) == pytest.approx(10 * max(told(plain, "learning_rate")))
    assert ours.spec.resolved(pretrained=True)["training"]["learning_rate"] == pytest.approx(1e-3)
    given = trained(text_run(tmp_path / "c", [CHOSEN], learning_rate=2e-4), tmp_path / "c")
    assert max(told(given, "learning_rate")) == pytest.approx(2e-4)


def test_wrong_choices_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no layer matches nope") as refused:
        begun(text_run(tmp_path / "a", [{**CHOSEN, "targets": ["nope"]}]))
    assert "query" in refused.value.remedy
    with pytest.raises(InvalidData, match="rank 200"):
        begun(text_run(tmp_path / "b", [{**CHOSEN, "rank": 200}]))
    with pytest.raises(InvalidPlan):
        image_run(tmp_path / "c", [CHOSEN])
    with pytest.raises(InvalidPlan, match="does not go with quantization_aware_training"):
        text_run(tmp_path / "d", [CHOSEN, 49])


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_the_adapter_alone_makes_the_base_the_trained_model(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [CHOSEN]), tmp_path)
    folder = tmp_path / "adapter"
    folder.mkdir()
    assert run.plan.instructions[0].artifacts(run, folder) == {"adapter": folder}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "minilm-l6"
    assert str(tmp_path) not in json.dumps(config)
    loaded = PeftModel.from_pretrained(run.task.build(), folder)
    rows = run.data.examples["test"]
    difference = eager_answers(run.task, loaded, rows) - eager_answers(run.task, run.model, rows)
    assert abs(difference).max() < 1e-5
    assert not LowRankAdaptation(keep_adapter=False).artifacts(begun(text_run(tmp_path / "none")), folder)
