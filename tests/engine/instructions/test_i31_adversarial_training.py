"""31: the worst case that is trained on, what it must leave alone, and what it is worth on real digits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import InvalidPlan
from engine.instructions.adversarial_defence.i31_adversarial_training import (
    AdversarialTraining,
    moved_embeddings,
    within,
)
from engine.plan import Plan
from engine.ports import Batch
from engine.robustness import Setting, attack_rows
from engine.run import Run
from engine.spec import Spec
from tests.engine.packaged import digit_run, packaged
from tests.engine.runs import tiny_pair_run
from tests.engine.tiny_run import begun, image_run, text_run


def batch_of(run: Run, n: int = 8) -> Batch:
    examples, labels = run.data.examples["train"], run.data.train.labels
    return run.task.collate([examples[i] for i in range(n)], labels[:n].tolist())


def plain(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Losses and outputs of the model as it stands."""
    outputs = run.task.forward(run.model, batch)
    return run.task.losses(outputs, batch), outputs


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_pictures_get_a_loss_that_is_no_smaller_and_trains_the_weights(tmp_path: Path, method: Any) -> None:
    run = begun(image_run(tmp_path))
    run.model.eval()  # so that the plain loss and the searched one are of the same pass
    batch = batch_of(run)
    losses, outputs = plain(run, batch)
    hard = AdversarialTraining(method=method).loss(run, losses, outputs, batch)
    assert hard.shape == losses.shape
    assert (hard >= losses - 1e-5).all()
    assert hard.sum() > losses.sum()
    hard.sum().backward()
    assert all(one.grad is not None for one in run.model.parameters())


def test_the_searched_pictures_stay_in_the_ball(tmp_path: Path) -> None:
    run = begun(image_run(tmp_path))
    batch = batch_of(run)
    seen: list[Tensor] = []
    run.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"].detach().clone()), with_kwargs=True
    )
    losses, outputs = plain(run, batch)
    one = AdversarialTraining(method="pgd", epsilon=0.05, steps=4)
    one.loss(run, losses, outputs, batch)
    task: Any = run.task
    std = torch.tensor(getattr(task, "pictures", task).std).view(-1, 1, 1)
    changes = [((pixels - batch["pixel_values"]) * std).abs().max() for pixels in seen[1:]]
    assert len(changes) == 6  # four steps, the last point, and the pass that is trained on
    assert max(changes) <= 0.05 + 1e-6
    assert max(changes) > 0.045


def test_the_search_leaves_gradients_averages_and_modes_alone(tmp_path: Path) -> None:
    run = begun(image_run(tmp_path))
    run.model.train()
    batch = batch_of(run)
    losses, _ = plain(run, batch)
    losses.sum().backward(retain_graph=True)
    before = {name: one.grad.clone() for name, one in run.model.named_parameters() if one.grad is not None}
    one = AdversarialTraining(method="pgd")
    averages = {name: one.clone() for name, one in run.model.named_buffers()}
    worst = one._worst(run, batch, lambda pixels: plain(run, {**batch, "pixel_values": pixels})[0], None)
    assert not torch.equal(worst["pixel_values"], batch["pixel_values"])
    assert all(
        torch.equal(before[name], one.grad) for name, one in run.model.named_parameters() if one.grad is not None
    )
    assert all(torch.equal(averages[name], one) for name, one in run.model.named_buffers())
    assert all(module.training for module in run.model.modules())


def test_freelb_is_the_plain_loss_where_nothing_may_move(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    run.model.eval()
    batch = batch_of(run)
    losses, outputs = plain(run, batch)
    still = AdversarialTraining(embedding_epsilon=1e-6).loss(run, losses, outputs, batch)
    assert torch.allclose(still, losses, atol=1e-4)
    moved = AdversarialTraining(embedding_epsilon=2.0, steps=6).loss(run, losses, outputs, batch)
    assert moved.sum() > losses.sum() + 1e-3


def test_freelb_bounds_each_example_and_leaves_padding_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(text_run(tmp_path))
    batch = batch_of(run)
    deltas: list[Tensor] = []

    def remembered(model: Any, delta: Tensor) -> Any:
        deltas.append(delta.detach().clone())
        return moved_embeddings(model, delta)

    module = "engine.instructions.adversarial_defence.i31_adversarial_training.moved_embeddings"
    monkeypatch.setattr(module, remembered)
    losses, outputs = plain(run, batch)
    AdversarialTraining(embedding_epsilon=0.5, steps=4).loss(run, losses, outputs, batch)
    padding = batch["attention_mask"] == 0
    assert padding.any()
    for delta in deltas:
        assert delta.flatten(1).norm(dim=1).max() <= 0.5 + 1e-5
        assert not delta[padding].any()
    assert len(deltas) == 4
    assert deltas[-1].flatten(1).norm(dim=1) == pytest.approx(np.full(len(losses), 0.5), abs=1e-4)


def test_the_worst_case_is_of_the_loss_that_another_made(tmp_path: Path) -> None:
    weights = {"text_weight": 1.0, "image_weight": 0.0, "uniformity_weight": 1.0}
    still = {"number": 31, "epsilon": 1e-7, "steps": 1}
    run = begun(tiny_pair_run(tmp_path, [{"number": 7, **weights}, still]))
    run.model.eval()
    batch = batch_of(run)
    own, outputs = plain(run, batch)
    aligned, adversarial = run.plan.on("loss")
    made = aligned.loss(run, own, outputs, batch)
    assert not torch.allclose(made, own, atol=1e-2)
    assert torch.allclose(adversarial.loss(run, made, outputs, batch), made, atol=1e-4)


def test_under_autocast_the_search_is_in_fp32_and_the_training_is_not(tmp_path: Path) -> None:
    run = begun(tiny_pair_run(tmp_path, [26, {"number": 31, "steps": 1}]))
    (cast,) = run.plan.on("context")
    adversarial = run.plan.on("loss")[0]
    frozen = run.model.get_submodule("text_model.encoder.layer.0.output.dense")
    seen: list[torch.dtype] = []
    frozen.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = batch_of(run)
    with cast.context(run):
        losses, outputs = plain(run, batch)
        adversarial.loss(run, losses, outputs, batch)
    half, full = torch.bfloat16, torch.float32
    assert seen == [half, full, full, half]  # a plain pass, the step and what it came to, the pass that is trained on
    assert frozen.get_parameter("weight").dtype == full


def test_moves_are_scaled_down_example_by_example() -> None:
    delta = torch.stack([torch.ones(3, 4), 0.01 * torch.ones(3, 4)])
    found = within(delta, 1.0)
    assert found[0].norm() == pytest.approx(1.0)
    assert torch.equal(found[1], delta[1])


def test_warm_up_is_plain_training(tmp_path: Path) -> None:
    run = begun(image_run(tmp_path))
    batch = batch_of(run)
    losses, outputs = plain(run, batch)
    one = AdversarialTraining(warmup_epochs=1)
    assert one.loss(run, losses, outputs, batch) is losses
    assert one.report(run) == {}
    run.clock.epoch = 1
    assert one.loss(run, losses, outputs, batch) is not losses
    assert one.report(run)["loss_gain"] > 0


@pytest.mark.parametrize(
    ("task", "choice", "says"),
    [
        ("text_classification", {"method": "trades"}, "trades does not serve"),
        ("image_classification", {"method": "freelb"}, "freelb does not serve"),
        ("image_classification", {"step_size": 0.2}, "longer than the ball"),
    ],
)
def test_what_does_not_fit_is_refused(task: str, choice: dict[str, Any], says: str) -> None:
    body = {"task": task, "dataset": "none", "instructions": [{"name": "adversarial_training", **choice}]}
    with pytest.raises(InvalidPlan, match=says):
        Plan.of(Spec.model_validate(body))


def test_private_training_and_mixed_labels_are_excluded() -> None:
    assert "differential_privacy" in AdversarialTraining().excludes
    assert "mixed_labels" in AdversarialTraining(method="pgd").excludes
    assert "mixed_labels" not in AdversarialTraining(method="trades").excludes


def test_digits_are_right_more_often_under_attack(tmp_path: Path) -> None:
    """The measured effect: the same net, rows and seed, with and without; PGD-20 against each model itself."""
    robust, clean = {}, {}
    for name, chosen in (("plain", []), ("trained", [{"number": 31, "method": "pgd", "epsilon": 0.15}])):
        folder = tmp_path / name
        run = digit_run(folder, chosen)
        package = packaged(run, folder)
        outcome = attack_rows(run, package, run.model, ["pgd20"], Setting(rows=200, epsilon=0.15))["pgd20"]
        robust[name], clean[name] = outcome.held.mean(), outcome.right.mean()
    assert robust["trained"] > robust["plain"] + 0.1
    assert clean["trained"] > 0.8
