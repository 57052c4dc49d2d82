"""Instruction 24: the gradient of many unequal chunks is that of one large batch, through the loop that users run."""

from pathlib import Path

import pytest
import torch

from engine.baseline import counted_windows
from engine.errors import InvalidPlan
from engine.instruction import Window
from engine.instructions.gradients.i24_gradient_accumulation import GradientAccumulation
from engine.run import Run
from tests.engine.tiny_run import begun, text_run, told, trained

CHUNKS = ((0, 1, 2, 3, 4), (5,), (6, 7, 8), (9, 10), (11, 12, 13, 14), (15,), (16, 17))


def _gradient_of(run: Run, rows: list[int]) -> torch.Tensor:
    """The gradient of the mean loss over some rows as one batch, written out."""
    batch = run.task.collate([run.data.examples["train"][i] for i in rows], run.data.train.labels[rows].tolist())
    losses = run.task.losses(run.task.forward(run.model, batch), batch)
    gradients = torch.autograd.grad(losses.sum() / len(rows), list(run.model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_unequal_chunks_give_the_gradient_of_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    run = text_run(tmp_path, [{"name": "gradient_accumulation", "steps": steps}])
    run.task.config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})  # type: ignore[attr-defined]
    seen: list[torch.Tensor] = []

    def kept(self: GradientAccumulation, run: Run) -> None:
        seen.append(torch.cat([w.grad.flatten() for w in run.model.parameters() if w.grad is not None]).clone())

    monkeypatch.setattr(GradientAccumulation, "gradients", kept)
    monkeypatch.setattr("engine.baseline.Baseline.step", lambda self, run: True)  # so that all are at the same weights
    monkeypatch.setattr(
        "engine.baseline.Baseline.grouping", lambda self, run, ids, epoch: (Window((chunk,)) for chunk in CHUNKS)
    )
    trained(run, tmp_path)

    merged = [[row for chunk in CHUNKS[i : i + steps] for row in chunk] for i in range(0, len(CHUNKS), steps)]
    assert len(seen) == len(merged), "the last, partial window steps too"
    for gradient, rows in zip(seen, merged, strict=True):
        expected = _gradient_of(run, rows)
        assert float((gradient - expected).norm() / expected.norm()) < 1e-6


def test_every_row_is_seen_once_and_the_steps_are_counted_after_merging(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [{"name": "gradient_accumulation", "steps": 3}], count=60), tmp_path)
    windows = list(counted_windows(run, 0))
    assert sorted(row for window in windows for chunk in window.chunks for row in chunk) == list(range(48))
    assert [len(window.chunks) for window in windows] == [3, 3]
    assert len(told(run, "train_loss")) == run.clock.total == 2
    assert run.plan.instructions[0].report(run) == {"effective_batch_items": 24.0}


def test_windows_fill_by_items_and_fixed_divisors_pass_untouched(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path))
    fixed = Window(((40,), (41, 42)), divisor=8.0)
    given = [*(Window((chunk,)) for chunk in CHUNKS[:3]), fixed, *(Window((chunk,)) for chunk in CHUNKS[3:])]
    by_items = list(GradientAccumulation(target_items=6).windows(run, iter(given)))
    assert by_items == [
        Window(CHUNKS[:2]),
        Window(CHUNKS[2:3]),
        fixed,
        Window(CHUNKS[3:5]),
        Window(CHUNKS[5:]),
    ]


def test_pairs_are_refused_by_their_task(tmp_path: Path) -> None:
    assert "text_image_pairs" not in GradientAccumulation.tasks
    with pytest.raises(InvalidPlan, match="chosen twice"):
        text_run(tmp_path, [24, 24])
