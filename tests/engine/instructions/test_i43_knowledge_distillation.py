"""Instruction 43: the soft loss against one by hand, what a student is, and that it learns what its teacher says."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.distillation import soft_losses, soft_similarities
from engine.errors import InvalidPlan
from engine.inference import eager_answers
from engine.instructions.compression.i43_knowledge_distillation import KnowledgeDistillation
from engine.ports import Answers
from engine.pruning import encoder_of
from engine.run import Run
from engine.students import student_blocks
from tests.engine.tiny_lm import tiny_lm_run
from tests.engine.tiny_run import begun, image_run, text_run, trained


def by_hand(student: list[float], teacher: list[float], temperature: float) -> float:
    """T^2 sum p log(p / q), one term a class."""

    def shares(logits: list[float]) -> list[float]:
        powers = [math.exp(one / temperature) for one in logits]
        return [one / sum(powers) for one in powers]

    pairs = zip(shares(teacher), shares(student), strict=True)
    return temperature**2 * sum(p * math.log(p / q) for p, q in pairs)


def test_the_soft_loss_is_that_of_the_paper() -> None:
    drawn = np.random.default_rng(0)
    student, teacher = drawn.normal(0, 3, (5, 4)), drawn.normal(0, 3, (5, 4))
    for temperature in (0.5, 1.0, 4.0):
        found = soft_losses(torch.tensor(student), torch.tensor(teacher), temperature)
        expected = [by_hand(*pair, temperature) for pair in zip(student.tolist(), teacher.tolist(), strict=True)]
        assert found.tolist() == pytest.approx(expected, rel=1e-9)
    assert float(soft_losses(torch.tensor(teacher), torch.tensor(teacher), 2.0).abs().max()) < 1e-6


def test_of_pairs_the_similarities_within_a_batch_are_taught() -> None:
    drawn = np.random.default_rng(1)
    student, teacher = (drawn.normal(size=(3, 8)) for _ in range(2))
    found = soft_similarities(torch.tensor(student), torch.tensor(teacher), torch.tensor(5.0), 2.0)
    said, taught = (5.0 * one[:, :4] @ one[:, 4:].T for one in (student, teacher))
    for row in range(3):
        to_image = by_hand(said[row].tolist(), taught[row].tolist(), 2.0)
        to_text = by_hand(said[:, row].tolist(), taught[:, row].tolist(), 2.0)
        assert float(found[row]) == pytest.approx((to_image + to_text) / 2, rel=1e-6)
    same = soft_similarities(torch.tensor(teacher), torch.tensor(teacher), torch.tensor(5.0), 2.0)
    assert float(same.abs().max()) < 1e-6


def test_the_gradient_is_that_by_hand_and_keeps_its_size_with_the_temperature() -> None:
    teacher = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64) / 100
    sizes = {}
    for temperature in (1.0, 4.0):
        student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        soft_losses(student, teacher, temperature).sum().backward()
        assert student.grad is not None
        # d/dz of T^2 KL is T (q - p), by hand.
        shares = (torch.softmax(student / temperature, 1) - torch.softmax(teacher / temperature, 1)).detach()
        assert torch.allclose(student.grad, temperature * shares, atol=1e-12)
        sizes[temperature] = float(student.grad.norm())
    # Near equal logits a gradient without T^2 would be a sixteenth at T = 4.
    assert sizes[4.0] / sizes[1.0] == pytest.approx(1.0, rel=0.01)


def blocks_of(model: nn.Module) -> int:
    """How many attention blocks an encoder has."""
    return len(encoder_of(model)[1])


def taught_run(folder: Path, **parameters: Any) -> Run:
    """A trained run of two layers, before it compresses."""
    return trained(text_run(folder, [{"number": 43, **parameters}], count=300, epochs=6, learning_rate=3e-3), folder)


def agreement(run: Run, teacher: Answers) -> float:
    return float(run.task.same(teacher, eager_answers(run.task, run.model, run.data.examples["test"])).mean())  # type: ignore[union-attr]


def compressed(run: Run) -> Answers:
    """Compress; what the teacher said of the test rows."""
    (one,) = run.plan.on("compress")
    teacher = eager_answers(run.task, run.model, run.data.examples["test"])
    run.model = one.compress(run, run.model)
    return teacher


def test_a_student_of_fewer_layers_learns_what_its_teacher_says(tmp_path: Path) -> None:
    found: dict[str, float] = {}
    ways: dict[str, dict[str, Any]] = {"untaught": {"steps": 1}, "taught": {"steps": 120, "alpha": 1.0}}
    for name, parameters in ways.items():
        run = taught_run(tmp_path / name, **parameters)
        assert blocks_of(run.model) == 2
        teacher = compressed(run)
        assert blocks_of(run.model) == 1
        found[name] = agreement(run, teacher)
        (one,) = run.plan.on("report")
        assert one.report(run) == {"distillation_agreement": found[name]}
    assert found["taught"] > 0.9
    assert found["taught"] > found["untaught"]


def test_the_teacher_alone_decides_where_alpha_is_one(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path, [{"number": 43, "alpha": 1.0}]))
    (one,) = run.plan.on("loss")
    rows = list(range(8))
    examples, labels = [run.data.examples["train"][i] for i in rows], run.data.train.labels[rows].tolist()
    batch = run.task.collate(examples, labels)
    run.data.taught = np.random.default_rng(0).normal(0, 1, (len(run.data.train), 2)).astype(np.float32)
    seen = one.batch(run, batch, rows, 0)
    outputs = run.task.forward(run.model, batch)
    hard = run.task.losses(outputs, batch)
    found = one.loss(run, hard, outputs, seen)
    assert torch.equal(found, soft_losses(outputs.float(), torch.from_numpy(run.data.taught[rows]), 2.0))
    swapped = one.loss(run, hard, outputs, one.batch(run, batch, rows[::-1], 0))
    assert not torch.allclose(found, swapped), "each row hears what was said of it"
    half = KnowledgeDistillation(alpha=0.25).loss(run, hard, outputs, seen)
    assert torch.allclose(half, 0.75 * hard + 0.25 * found)


def test_no_dropout_speaks_out_of_the_teacher(tmp_path: Path) -> None:
    run = taught_run(tmp_path, steps=1)
    run.model.train()
    examples = run.data.examples["train"]
    expected = eager_answers(run.task, run.model, examples)
    compressed(run)
    assert run.data.taught is not None
    assert np.array_equal(run.data.taught, expected)


def test_with_pruning_it_is_the_loss_of_the_recovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = [{"number": 43, "alpha": 1.0}, {"number": 45, "ratio": 0.5, "recovery_steps": 40}]
    run = trained(text_run(tmp_path, plan, count=300, epochs=6, learning_rate=3e-3), tmp_path)
    teacher = eager_answers(run.task, run.model, run.data.examples["test"])
    heard: list[bool] = []
    loss = KnowledgeDistillation.loss

    def listened(self: KnowledgeDistillation, *given: Any) -> Any:
        heard.append("teacher" in given[3])
        return loss(self, *given)

    monkeypatch.setattr(KnowledgeDistillation, "loss", listened)
    for one in run.plan.on("compress"):
        run.model = one.compress(run, run.model)
    assert blocks_of(run.model) == 2
    assert len(heard) == 40
    assert all(heard)
    assert agreement(run, teacher) > 0.9


def test_a_residual_net_keeps_a_block_of_each_stage_and_learns(tmp_path: Path) -> None:
    distances: dict[str, float] = {}
    ways: dict[str, dict[str, Any]] = {"untaught": {"steps": 1}, "taught": {"steps": 60, "alpha": 1.0}}
    for name, parameters in ways.items():
        run = trained(image_run(tmp_path / name, [{"number": 43, **parameters}], count=300, epochs=3), tmp_path / name)
        assert [len(one) for one in student_blocks(run.model, None).values()] == [1, 1, 1]
        before = sum(weight.numel() for weight in run.model.parameters())
        teacher = compressed(run)
        assert sum(weight.numel() for weight in run.model.parameters()) < 0.7 * before
        said = eager_answers(run.task, run.model, run.data.examples["test"])
        distances[name] = float(soft_losses(torch.from_numpy(said), torch.from_numpy(teacher), 2.0).mean())
        (one,) = run.plan.on("report")
        assert one.report(run) == {"distillation_agreement": agreement(run, teacher)}
    assert agreement(run, teacher) > 0.9
    assert distances["taught"] < 0.5 * distances["untaught"]


def test_a_language_model_hears_its_teacher_at_every_token(tmp_path: Path) -> None:
    nats: dict[str, float] = {}
    ways: dict[str, dict[str, Any]] = {"untaught": {"steps": 1}, "taught": {"steps": 60, "alpha": 1.0}}
    for name, parameters in ways.items():
        run = trained(tiny_lm_run(tmp_path / name, [{"number": 43, **parameters}], epochs=3), tmp_path / name)
        teacher = compressed(run)
        assert vars(run.model)["config"].num_hidden_layers == 1
        assert run.data.teacher is None, "it takes no memory once it has taught"
        said = eager_answers(run.task, run.model, run.data.examples["test"])
        nats[name] = run.task.mean_loss(said, run.data.test.labels)
        (one,) = run.plan.on("report")
        bits = [rows[:, 0].sum() / np.log(2) / rows[:, 2].sum() for rows in (said, teacher)]
        assert one.report(run) == {"score_lost": pytest.approx(bits[0] - bits[1], rel=1e-4)}
    assert nats["taught"] < nats["untaught"] - 0.1


def test_a_student_that_is_its_teacher_has_no_distance(tmp_path: Path) -> None:
    run = begun(tiny_lm_run(tmp_path, [{"number": 43, "alpha": 1.0}, 12]))
    run.data.teacher = copy.deepcopy(run.model).eval()
    run.model.eval()
    (one,), rows = run.plan.on("loss"), list(range(6))
    batch = run.task.collate([run.data.examples["train"][i] for i in rows], [0] * 6)
    with one.context(run):
        outputs = run.task.forward(run.model, batch)
        losses = run.task.losses(outputs, batch)
        assert float(one.loss(run, losses, outputs, batch).detach().abs().max()) < 1e-4
        with torch.no_grad():
            next(run.data.teacher.parameters()).mul_(2.0)
        assert float(one.loss(run, losses, outputs, batch).detach().min()) > 0.01


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ([{"number": 43, "layers": 2}], "not_smaller"),
        ([{"number": 43, "layers": 1}, 45], "not_applicable"),
        ([43, 49], "excluded"),
    ],
)
def test_what_it_refuses(tmp_path: Path, plan: list[Any], code: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        begun(text_run(tmp_path, plan))
    assert code in {fault.code for fault in caught.value.faults}
    assert all(fault.pointer.startswith("/instructions/") and fault.remedy for fault in caught.value.faults)
