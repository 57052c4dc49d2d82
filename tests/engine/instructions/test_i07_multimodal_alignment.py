"""Instruction 7 against its own formula by loops, and by what its weights do to a space."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import InvalidPlan
from engine.inference import eager_answers
from engine.instruction import Instruction
from engine.instructions.preprocessing.i07_multimodal_alignment import MultimodalAlignment
from engine.plan import Plan
from engine.prepare import begin
from engine.run import Run
from engine.spec import Spec
from tests.engine.runs import tiny_pair_run, trained
from tests.engine.tiny import tiny_pair_rows

ROWS = tiny_pair_rows(240)


def _run(folder: Path, **parameters: Any) -> Run:
    training = {"epochs": 6, "batch_size": 24, "learning_rate": 3e-3}
    return tiny_pair_run(folder, [{"name": "multimodal_alignment", **parameters}], ROWS, **training)


def _effects(run: Run, folder: Path) -> dict[str, float]:
    trained(run, folder)
    (one,) = run.plan.on("report")
    return dict(one.report(run))


def _faults(**body: Any) -> list[tuple[str, str]]:
    choice = {"name": "multimodal_alignment", **body.pop("parameters", {})}
    spec = {"task": "text_image_pairs", "dataset": "rows", "instructions": [choice], **body}
    try:
        Plan.of(Spec.model_validate(spec))
    except InvalidPlan as refused:
        return [(fault.pointer, fault.code) for fault in refused.faults]
    return []


def _by_loops(one: MultimodalAlignment, text: Tensor, image: Tensor, scale: float) -> list[float]:
    """The weighted terms of each pair, one number at a time, in float64."""
    n = len(text)

    def log_share(first: Tensor, second: Tensor, i: int) -> float:
        scores = [scale * float(first[i] @ second[j]) for j in range(n)]
        return math.log(sum(map(math.exp, scores))) - scores[i]

    def spread(points: Tensor) -> float:
        near = [math.exp(-2 * float(((points[i] - points[j]) ** 2).sum())) for i in range(n) for j in range(i)]
        return math.log(sum(near) / len(near))

    return [
        one.text_weight * log_share(text, image, i)
        + one.image_weight * log_share(image, text, i)
        + one.alignment_weight * float(((text[i] - image[i]) ** 2).sum())
        + one.uniformity_weight * (spread(text) + spread(image)) / 2
        for i in range(n)
    ]


@pytest.mark.parametrize(
    "weights", [(0.5, 0.5, 0.0, 0.0), (0.6, 0.3, 0.1, 0.0), (0.0, 1.0, 0.0, 0.0), (0.2, 0.1, 0.4, 0.3)]
)
def test_the_loss_is_what_loops_give(weights: tuple[float, float, float, float], tmp_path: Path) -> None:
    names = ("text_weight", "image_weight", "alignment_weight", "uniformity_weight")
    one = MultimodalAlignment.model_validate(dict(zip(names, weights, strict=True)))
    drawn = torch.Generator().manual_seed(3)
    points = [torch.randn(4, 3, generator=drawn, dtype=torch.float64) for _ in range(2)]
    sides = [torch.nn.functional.normalize(one, dim=1) for one in points]
    outputs = torch.cat([*sides, torch.full((4, 1), 6.0, dtype=torch.float64)], dim=1)
    run = tiny_pair_run(tmp_path, [], ROWS)
    found = one.loss(run, torch.zeros(4), outputs, {"labels": torch.arange(4)[:, None].expand(4, 2)})
    assert found.tolist() == pytest.approx(_by_loops(one, sides[0], sides[1], 6.0), abs=1e-4)


def test_the_plain_weights_are_the_tasks_own_loss(tmp_path: Path) -> None:
    run = tiny_pair_run(tmp_path, [7], ROWS)
    begin(run, None)
    batch = run.task.collate([run.data.examples["train"][i] for i in range(12)], [0] * 12)
    outputs = run.task.forward(run.model, batch)
    own = run.task.losses(outputs, batch)
    (one,) = run.plan.on("loss")
    assert torch.allclose(one.loss(run, torch.zeros(12), outputs, batch), own)


def test_it_sets_dimension_temperature_and_what_trains(tmp_path: Path) -> None:
    run = _run(tmp_path, dimension=48, temperature=0.2, learnable=False, freeze_text=False)
    begin(run, None)
    scale = run.model.get_parameter("logit_scale")
    assert float(scale.detach().exp()) == pytest.approx(5.0, rel=1e-5)
    assert not scale.requires_grad
    assert all(weight.requires_grad for weight in run.model.get_submodule("text_model").parameters())
    assert eager_answers(run.task, run.model, run.data.examples["valid"]).shape == (24, 96)
    for group in run.optimizer.param_groups:
        if group["weight_decay"]:
            assert all(weight.ndim >= 2 for weight in group["params"]), "the temperature does not decay"


def test_the_temperature_stays_within_its_bounds(tmp_path: Path) -> None:
    run = _run(tmp_path, learnable=True)
    begin(run, None)
    (one,) = run.plan.on("after_step")
    scale = run.model.get_parameter("logit_scale")
    for value, kept in ((9.0, 100.0), (-3.0, 1.0), (2.0, math.exp(2.0))):
        with torch.no_grad():
            scale.fill_(value)
        one.after_step(run)
        assert float(scale.detach().exp()) == pytest.approx(kept, rel=1e-5)


def test_contrast_finds_and_attraction_alone_collapses(tmp_path: Path) -> None:
    contrast = _effects(_run(tmp_path / "a"), tmp_path / "a")
    # What the article's only term between the two sides does: the weight that pushes apart is too small to matter.
    attraction = _effects(
        _run(tmp_path / "b", text_weight=0.0, image_weight=0.0, alignment_weight=1.0, uniformity_weight=1e-9),
        tmp_path / "b",
    )
    assert contrast["image_to_text_recall_at_1"] > 0.3
    assert attraction["image_to_text_recall_at_1"] < contrast["image_to_text_recall_at_1"] / 2
    assert attraction["mean_cosine_between_images"] > 0.9
    assert contrast["mean_cosine_between_images"] < 0.6
    assert attraction["alignment"] < contrast["alignment"]
    assert attraction["uniformity"] > contrast["uniformity"]
    assert contrast["negatives"] == 23
    assert contrast["temperature"] != pytest.approx(0.07, rel=1e-4)


def test_uniformity_spreads_pictures_and_alignment_draws_pairs_together(tmp_path: Path) -> None:
    plain = _effects(_run(tmp_path / "a"), tmp_path / "a")
    spread = _effects(_run(tmp_path / "b", uniformity_weight=1.0), tmp_path / "b")
    drawn = _effects(_run(tmp_path / "c", alignment_weight=1.0), tmp_path / "c")
    assert spread["uniformity"] < plain["uniformity"]
    assert drawn["alignment"] < plain["alignment"]


def test_what_cannot_be_trained_is_refused() -> None:
    nothing = {"text_weight": 0.0, "image_weight": 0.0}
    collapses = ("/instructions/0/text_weight", "alignment_collapses")
    assert _faults(parameters=nothing | {"alignment_weight": 1.0}) == [collapses]
    assert _faults(parameters=nothing) == [collapses]
    assert _faults(parameters=nothing | {"uniformity_weight": 0.5, "alignment_weight": 1.0}) == []
    assert _faults(training={"batch_size": 7}) == [("/instructions/0", "too_few_negatives")]
    assert _faults(training={"batch_size": 8}) == []
    assert ("/instructions/0", "wrong_task") in _faults(task="text_classification")


@pytest.mark.parametrize("fact", ["mixed_labels", "differential_privacy"])
def test_it_does_not_go_with_what_takes_a_partner_or_a_gradient_away(fact: str) -> None:
    class Other(Instruction):
        """Says a fact."""

        number = 99
        band = "privacy"
        title = "Other"
        source = "none"
        metric = "none"
        name: str = "other"

        @property
        def provides(self) -> frozenset[str]:
            return frozenset({fact})

    spec = Spec.model_validate({"task": "text_image_pairs", "dataset": "rows"})
    both = spec.model_copy(update={"instructions": (MultimodalAlignment(), Other())})
    with pytest.raises(InvalidPlan, match="multimodal_alignment does not go with other"):
        Plan.of(both)
    assert "couples_rows" in MultimodalAlignment().provides


def test_equal_captions_and_captions_of_one_picture_do_not_push_each_other_apart(tmp_path: Path) -> None:
    run = tiny_pair_run(tmp_path, [7], ROWS)
    (one,) = run.plan.on("loss")

    def push(captions: list[int], pictures: list[int]) -> float:
        text = torch.eye(4)[[0, 0, 1, 2]].requires_grad_(True)
        outputs = torch.cat([text, text.detach(), torch.full((4, 1), 20.0)], dim=1)
        first = one.loss(run, torch.zeros(4), outputs, {"labels": torch.tensor([captions, pictures]).T})[0]
        return float(torch.autograd.grad(first, text)[0].abs().max())

    alone = [0, 1, 2, 3]
    assert push([0, 0, 2, 3], alone) < 1e-4
    assert push(alone, [0, 0, 2, 3]) < 1e-4
    assert push(alone, alone) > 1
