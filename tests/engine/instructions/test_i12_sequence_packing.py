"""Instruction 12: packed documents do not see each other, no target crosses a border, every document is seen once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.baseline import counted_windows
from engine.errors import InvalidData, InvalidPlan
from engine.instructions.preprocessing import i12_sequence_packing as file_12
from engine.instructions.preprocessing.i12_sequence_packing import _packed, best_fit, in_order
from engine.packed_attention import attend
from engine.ports import Batch
from engine.prepare import begin
from engine.run import Run
from engine.spec import Spec
from engine.token_loss import IGNORED
from tests.engine.runs import trained
from tests.engine.tiny_lm import tiny_lm_run
from tests.engine.tiny_run import told

CHOSEN: dict[str, Any] = {"name": "sequence_packing"}


def begun(folder: Path, choice: dict[str, Any] | None = None, **training: Any) -> Run:
    run = tiny_lm_run(folder, [choice or CHOSEN], **{"max_length": 96, **training})
    begin(run, None)
    run.model.eval()
    return run


def _collated(run: Run, rows: list[int]) -> dict[str, torch.Tensor]:
    return run.task.collate([run.data.examples["train"][i] for i in rows], [0] * len(rows))


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("in_first", [1, 3, 4])
def test_packed_rows_give_the_losses_of_their_documents_alone(tmp_path: Path, masked: bool, in_first: int) -> None:
    run, rows = begun(tmp_path), [0, 3, 5, 7]
    batch = _collated(run, rows)
    lengths = batch["attention_mask"].sum(1).tolist()
    sizes = [sum(lengths[:in_first]), sum(lengths[in_first:])][: 1 + (in_first < len(rows))]
    if len(sizes) > 1:
        attend(run.model, "sdpa")
    packed = _packed(batch, sizes, masked=masked)
    together = run.task.losses(run.task.forward(run.model, packed), packed)
    alone = 0.0
    items = 0
    for row in rows:
        batch = _collated(run, [row])
        alone += float(run.task.losses(run.task.forward(run.model, batch), batch).sum())
        items += run.task.items(batch)
    assert together.shape == (len(sizes),)
    assert packed["input_ids"].shape == (len(sizes), max(sizes))
    assert float(together.sum()) == pytest.approx(alone, rel=1e-5)
    assert run.task.items(packed) == items


def test_another_document_has_no_influence_at_all(tmp_path: Path) -> None:
    run = begun(tmp_path)
    batch = _collated(run, [0, 1, 2])
    packed = _packed(batch, [int(batch["attention_mask"].sum())], masked=False)
    first = int(batch["attention_mask"][0].sum())
    changed = {name: value.clone() for name, value in packed.items()}
    changed["input_ids"][0, :first] = 7
    losses, other = run.task.forward(run.model, packed), run.task.forward(run.model, changed)
    assert torch.equal(losses[0, first:], other[0, first:])
    assert not torch.equal(losses[0, : first - 1], other[0, : first - 1])


def test_positions_start_again_and_first_tokens_are_no_targets(tmp_path: Path) -> None:
    run = begun(tmp_path)
    batch = _collated(run, [0, 1, 2])
    lengths = batch["attention_mask"].sum(1).tolist()
    packed = _packed(batch, [sum(lengths)], masked=False)
    starts = np.cumsum([0, *lengths[:-1]])
    assert packed["position_ids"][0].tolist() == [i for length in lengths for i in range(length)]
    assert all(int(packed["labels"][0, at]) == IGNORED for at in starts)
    assert packed["input_ids"].shape == (1, sum(lengths))


@pytest.mark.parametrize("broken", ["positions", "labels"])
def test_a_forgotten_restart_is_found_by_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def careless(batch: Any, sizes: Any, *, masked: bool) -> Any:
        packed = _packed(batch, sizes, masked=False)
        if broken == "positions":
            packed["position_ids"] = torch.arange(packed["input_ids"].shape[1]).expand_as(packed["input_ids"])
        else:
            packed["labels"] = packed["input_ids"].where(packed["attention_mask"] > 0, IGNORED)
        return packed

    monkeypatch.setattr(file_12, "_packed", careless)
    with pytest.raises(InvalidData, match="mixes packed documents"):
        begun(tmp_path)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=80), st.integers(64, 128))
def test_every_document_is_packed_once_and_rows_are_not_too_long(lengths: list[int], room: int) -> None:
    ids = list(np.random.default_rng(0).permutation(len(lengths)))
    for rows in (best_fit(ids, lengths, room), in_order(ids, lengths, room)):
        assert sorted(one for row in rows for one in row) == list(range(len(lengths)))
        assert all(row and sum(lengths[one] for one in row) <= room for row in rows)
    assert len(best_fit(ids, lengths, room)) <= 1.7 * sum(lengths) / room + 1, "best fit is within 1.7 of the bound"
    assert [one for row in in_order(ids, lengths, room) for one in row] == ids


def test_a_run_learns_from_every_document_and_tells_how_full_its_rows_were(tmp_path: Path) -> None:
    run = trained(tiny_lm_run(tmp_path, [CHOSEN], max_length=96, batch_size=2, epochs=2), tmp_path)
    seen = [row for window in counted_windows(run, 0) for chunk in window.chunks for row in chunk]
    assert sorted(seen) == list(range(len(run.data.examples["train"])))
    report = run.plan.instructions[0].report(run)
    assert 0.7 < report["fill"] <= 1
    assert report["documents_per_row"] > 1
    assert report["leak"] < 1e-4


def test_a_batch_is_one_pass_and_accumulation_merges_batches(tmp_path: Path) -> None:
    """24 counts batches of `batch_size` rows, not rows."""
    size: dict[str, Any] = {"max_length": 96, "batch_size": 2}
    plain, merged = tiny_lm_run(tmp_path, [CHOSEN], **size), tiny_lm_run(tmp_path, [CHOSEN, 24], **size)
    windows, fewer = list(counted_windows(plain, 0)), list(counted_windows(merged, 0))
    assert all(len(window.chunks) == 1 for window in windows)
    assert [chunk for window in fewer for chunk in window.chunks] == [window.chunks[0] for window in windows]
    steps = merged.plan.instructions[1].steps  # type: ignore[attr-defined]  # 24 has it
    assert max(len(window.chunks) for window in fewer) == min(steps, len(windows))


@pytest.mark.parametrize("by_document", [True, False])
def test_a_step_moves_the_weights_as_the_documents_alone_would(tmp_path: Path, by_document: bool) -> None:
    """The gradient of a batch of rows is the sum over its documents, over their targets."""
    run = begun(tmp_path, batch_size=2)
    window = next(counted_windows(run, 0))
    (chunk,) = window.chunks
    expected, items = _gradient(run, [_collated(run, [row]) for row in chunk])
    if not by_document:
        attend(run.model, run.state("sequence_packing").pop("attended"))
    batch = run.plan.instructions[0].batch(run, _collated(run, list(chunk)), chunk, 0)
    assert len(batch["input_ids"]) == (1 if by_document else 2)
    found, counted = _gradient(run, [batch])
    assert counted == items
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _gradient(run: Run, batches: list[Batch]) -> tuple[torch.Tensor, int]:
    """Of the summed loss, all weights behind one another; and the targets."""
    run.model.zero_grad()
    for batch in batches:
        run.task.losses(run.task.forward(run.model, batch), batch).sum().backward()
    grads = [weight.grad.flatten() for weight in run.model.parameters() if weight.grad is not None]
    return torch.cat(grads).clone(), sum(run.task.items(batch) for batch in batches)


def test_a_mask_of_documents_is_no_mask_of_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model needs one, its large negative numbers are not summed up as tokens."""
    monkeypatch.setattr(file_12, "_leak", lambda *_, masked, **__: 0.0 if masked else 1.0)
    run = trained(tiny_lm_run(tmp_path, [CHOSEN], max_steps=2), tmp_path)
    assert run.state("sequence_packing")["masked"]
    assert told(run, "train_loss")
    assert told(run, "padding_fraction") == []


def test_the_row_length_is_the_instructions_and_written_twice_is_a_fault() -> None:
    body: dict[str, Any] = {"task": "causal_lm", "dataset": "ds", "instructions": [{**CHOSEN, "length": 256}]}
    spec = Spec.model_validate(body)
    assert spec.training.max_length == 256
    assert Spec.model_validate({**body, "training": {"max_length": 256}}).training.max_length == 256
    with pytest.raises(ValidationError, match="both say how large"):
        Spec.model_validate({**body, "training": {"max_length": 128}})


def test_bucketing_and_packing_contend(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match="grouping"):
        tiny_lm_run(tmp_path, [CHOSEN, 11])
