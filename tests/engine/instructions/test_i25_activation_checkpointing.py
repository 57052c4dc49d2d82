"""Instruction 25: the gradients are those without it, dropout included, each block runs twice, and less is kept."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.baseline import Baseline
from engine.errors import InvalidData, InvalidPlan
from engine.instructions.gradients import i25_activation_checkpointing as file_25
from engine.instructions.gradients.i25_activation_checkpointing import ActivationCheckpointing
from engine.run import Run
from tests.engine.runs import tiny_pair_run
from tests.engine.tiny import tiny_pair_rows
from tests.engine.tiny_run import begun, image_run, text_run, trained

CHOSEN: dict[str, Any] = {"name": "activation_checkpointing"}


def _gradients(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The gradient of each step of a run."""
    seen: list[torch.Tensor] = []
    step = Baseline.step

    def kept(self: Baseline, run: Run) -> bool:
        seen.append(torch.cat([one.grad.flatten() for one in run.model.parameters() if one.grad is not None]).clone())
        return step(self, run)

    monkeypatch.setattr(Baseline, "step", kept)
    trained(run, folder)
    monkeypatch.setattr(Baseline, "step", step)
    return seen


@pytest.mark.parametrize(
    "company",
    [
        [],
        [{"name": "autocast"}],
        [{"name": "gradient_accumulation", "steps": 2}],
        [{"name": "low_rank_adaptation", "variant": "dora"}, {"name": "autocast"}],
    ],
)
def test_gradients_are_equal_with_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, company: list[dict[str, Any]]
) -> None:
    plain = _gradients(text_run(tmp_path / "a", company), tmp_path / "a", monkeypatch)
    ours = _gradients(text_run(tmp_path / "b", [CHOSEN, *company]), tmp_path / "b", monkeypatch)
    assert len(plain) == len(ours) > 1
    assert all(torch.equal(one, other) for one, other in zip(plain, ours, strict=True))


def test_a_recomputation_without_its_draws_would_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _gradients(text_run(tmp_path / "a", []), tmp_path / "a", monkeypatch)
    monkeypatch.setattr(file_25, "cheap_draws", lambda _: nullcontext())
    ours = _gradients(text_run(tmp_path / "b", [CHOSEN]), tmp_path / "b", monkeypatch)
    assert not torch.equal(plain[0], ours[0])


@pytest.mark.parametrize("every", [1, 2])
def test_each_chosen_block_runs_twice(tmp_path: Path, every: int) -> None:
    run = begun(text_run(tmp_path, [{**CHOSEN, "every": every}]))
    blocks = list(file_25._blocks(run.model))
    runs = [0] * len(blocks)

    def counted(number: int) -> Any:
        def count(*_: Any) -> None:
            runs[number] += 1

        return count

    # Inside the block, since the block's own hooks are outside of what is computed again.
    for number, block in enumerate(blocks):
        next(one for one in block.modules() if isinstance(one, nn.Linear)).register_forward_hook(counted(number))
    run.model.train()
    batch = run.task.collate([run.data.examples["train"][i] for i in range(4)], [0, 1, 0, 1])
    run.task.losses(run.task.forward(run.model, batch), batch).sum().backward()
    assert runs == [2 if number % every == 0 else 1 for number in range(len(blocks))]


def test_less_is_kept_and_the_shipped_model_is_plain(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [CHOSEN]), tmp_path)
    (one,) = run.plan.instructions
    report = one.report(run)
    assert 0 < report["saved_activation_bytes"] < 0.7 * report["saved_activation_bytes_without"]
    assert not file_25._wrapped(run.model)


def test_the_probe_leaves_averages_of_batch_norm_alone(tmp_path: Path) -> None:
    run = begun(tiny_pair_run(tmp_path, [CHOSEN], tiny_pair_rows(20)))
    before = [one.clone() for one in run.model.buffers()]
    run.plan.instructions[0].after_epoch(run, 0)
    assert all(torch.equal(*both) for both in zip(before, run.model.buffers(), strict=True))


def test_pictures_are_refused_for_their_batch_norm(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match="does not serve image_classification"):
        image_run(tmp_path, [CHOSEN])


def test_a_model_without_a_repeated_block_is_refused(tmp_path: Path) -> None:
    run = begun(text_run(tmp_path, []))
    with pytest.raises(InvalidData, match="no repeated block"):
        ActivationCheckpointing().model(run, nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
