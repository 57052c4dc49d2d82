"""Instruction 11: every row once, padding counted by hand, the pad that the model reads, and no drift."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data import Data
from engine.errors import InvalidPlan
from engine.events import Listed, Warned
from engine.instructions.preprocessing.i11_length_bucketing import (
    LengthBucketing,
    bucketed,
    cut,
    label_skew,
    padded_lengths,
    padded_tokens,
)
from engine.plan import Plan
from engine.randomness import generator
from engine.rows import pair_labels
from engine.run import Run
from engine.spec import Spec
from engine.tasks.text_classification import TextClassification
from tests.engine.runs import tiny_pair_run
from tests.engine.tiny import tiny_pair_rows, tiny_task, tiny_text_rows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200).map(lambda values: np.array(values, dtype=np.int64))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextClassification:
    return tiny_task(tmp_path_factory.mktemp("base"))


def _spec(*instructions: Any, batch_size: int = 4) -> Spec:
    return Spec.model_validate(
        {
            "task": "text_classification",
            "dataset": "a",
            "instructions": instructions,
            "training": {"batch_size": batch_size, "epochs": 2},
        }
    )


def _run(task: TextClassification, rows: int = 120, **parameters: Any) -> Run:
    spec = _spec({"name": "length_bucketing", **parameters})
    run = Run(spec, Plan.of(spec), Listed())
    texts = tiny_text_rows(rows)
    run.task, run.model = task, torch.nn.Linear(1, 1)
    run.data = Data(texts.where("train").loaded(), texts.where("valid").loaded(), texts.where("test").loaded(), task)
    return run


def _batches(run: Run, epoch: int) -> list[tuple[int, ...]]:
    chosen = run.plan.slot("grouping")
    assert isinstance(chosen, LengthBucketing)
    ids: Iterator[int] = run.plan.slot("order").order(run, epoch)
    windows = list(chosen.grouping(run, ids, epoch))
    assert all(len(window.chunks) == 1 for window in windows)
    return [window.chunks[0] for window in windows]


def _padded_by_hand(batches: list[tuple[int, ...]], lengths: list[int], multiple: int) -> int:
    total = 0
    for batch in batches:
        width = max(lengths[row] for row in batch)
        while width % multiple and width < max(lengths):
            width += 1
        total += sum(width for _ in batch)
    return total


@given(LENGTHS, st.integers(1, 9), st.integers(2, 5), st.integers(1, 16), st.none() | st.integers(20, 200))
def test_every_row_comes_once_and_padding_is_what_hands_count(
    lengths: np.ndarray[Any, Any], rows: int, window: int, multiple: int, tokens: int | None
) -> None:
    order = generator(1, "order").permutation(len(lengths)).tolist()
    widths = padded_lengths(lengths, multiple)
    batches = bucketed(order, widths, rows, window, generator(1, "batches"), tokens)
    assert Counter(row for batch in batches for row in batch) == Counter(range(len(lengths)))
    assert padded_tokens(batches, widths) == _padded_by_hand(batches, lengths.tolist(), multiple)
    if tokens is None:
        assert len(batches) == -(-len(lengths) // rows), "as many steps as without it"
        assert max(map(len, batches)) <= rows
    else:
        assert all(len(batch) == 1 or len(batch) * widths[list(batch)].max() <= tokens for batch in batches)


@given(LENGTHS, st.integers(1, 9), st.integers(2, 5))
def test_a_mega_batch_is_cut_in_order_of_length(lengths: np.ndarray[Any, Any], rows: int, window: int) -> None:
    order = generator(2, "order").permutation(len(lengths)).tolist()
    batches = bucketed(order, lengths, rows, window, generator(2, "batches"))
    for mega in cut(order, rows * window):
        inside = [batch for batch in batches if set(batch) <= set(mega)]
        assert Counter(row for batch in inside for row in batch) == Counter(mega)
        spans = sorted((int(lengths[list(batch)].min()), int(lengths[list(batch)].max())) for batch in inside)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_no_drift_from_long_to_short_is_left() -> None:
    lengths = np.arange(1, 4001)
    order = generator(3, "order").permutation(4000).tolist()
    batches = bucketed(order, lengths, 8, 50, generator(3, "batches"))
    means = np.array([lengths[list(batch)].mean() for batch in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.15
    assert abs(np.corrcoef(means[:50], np.arange(50))[0, 1]) < 0.5


def test_seed_and_epoch_decide_and_the_longest_batch_comes_first(task: TextClassification) -> None:
    run = _run(task, window=3)
    lengths = run.data.lengths("train")
    first, again, second = _batches(run, 0), _batches(run, 0), _batches(run, 1)
    assert first == again
    assert first != second
    costs = [len(batch) * int(lengths[list(batch)].max()) for batch in first]
    assert costs[0] == max(costs)
    plain = _batches(_run(task, window=3, longest_first=False), 0)
    assert Counter(plain) == Counter(first)
    assert plain != first


def test_padding_is_the_tasks_own_and_the_answers_stay(task: TextClassification) -> None:
    run = _run(task, multiple_of=8)
    chosen = run.plan.on("batch")[0]
    longest = int(run.data.lengths("train").max())
    model = task.build().eval()
    seen = set()
    for row_ids in _batches(run, 0):
        batch = task.collate([run.data.examples["train"][i] for i in row_ids], [1] * len(row_ids))
        padded = chosen.batch(run, batch, row_ids, 0)
        width, was = padded["input_ids"].shape[1], batch["input_ids"].shape[1]
        assert width == min(-(-was // 8) * 8, longest)
        seen.add(width - was)
        assert torch.equal(padded["input_ids"][:, :was], batch["input_ids"])
        assert (padded["input_ids"][:, was:] == task.pad).all()
        assert torch.equal(padded["attention_mask"].sum(dim=1), batch["attention_mask"].sum(dim=1))
        assert torch.equal(padded["labels"], batch["labels"])
        with torch.no_grad():
            torch.testing.assert_close(task.forward(model, padded), task.forward(model, batch), rtol=1e-4, atol=1e-5)
    assert max(seen) > 0


def test_a_budget_in_tokens_lets_every_row_weigh_the_same(task: TextClassification) -> None:
    run = _run(task, budget="tokens", max_tokens=64, window=2)
    windows = list(run.plan.slot("grouping").grouping(run, run.plan.slot("order").order(run, 0), 0))
    sizes = [len(window.chunks[0]) for window in windows]
    assert len(set(sizes)) > 1
    assert {window.divisor for window in windows} == {sum(sizes) / len(sizes)}


def test_the_report_agrees_with_the_batches(task: TextClassification) -> None:
    run = _run(task, multiple_of=4)
    lengths = run.data.lengths("train").tolist()
    reported = run.plan.on("report")[0].report(run)
    order = list(run.plan.slot("order").order(run, 0))
    before = _padded_by_hand([tuple(order[i : i + 4]) for i in range(0, len(order), 4)], lengths, 1)
    after = _padded_by_hand(_batches(run, 0), lengths, 4)
    assert reported == pytest.approx(
        {
            "padding_fraction_before": 1 - sum(lengths) / before,
            "padding_fraction": 1 - sum(lengths) / after,
            "token_share": after / before,
        }
    )
    assert reported["padding_fraction"] < reported["padding_fraction_before"]


def test_the_device_that_the_run_began_on_decides_the_multiple(
    task: TextClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, where = _run(task), "engine.instructions.preprocessing.i11_length_bucketing.device_of"
    monkeypatch.setattr(where, lambda _: torch.device("cuda"))
    began = _batches(run, 0)
    reported = run.plan.on("report")[0].report(run)
    monkeypatch.setattr(where, lambda _: torch.device("cpu"))  # the delivery moves the model to the processor
    assert _batches(run, 0) == began
    assert run.plan.on("report")[0].report(run) == reported
    assert _run(task).plan.on("report")[0].report(_run(task)) != reported


def test_a_length_that_predicts_the_label_is_told(task: TextClassification) -> None:
    run = _run(task)
    run.data.train.labels[:] = run.data.lengths("train") > np.median(run.data.lengths("train"))
    for one in run.plan.on("after_epoch"):
        one.after_epoch(run, 0)
        one.after_epoch(run, 1)
    assert isinstance(run.sink, Listed)
    assert [event.code for event in run.sink.events if isinstance(event, Warned)] == ["skewed_batches"]


def test_a_pair_is_never_alone_and_its_numbers_are_no_labels(tmp_path: Path) -> None:
    rows = tiny_pair_rows(20)
    rows.labels[:] = pair_labels(rows.labels, np.arange(20) // 2)  # two captions a picture: numbers of 2 to the 32
    budgets: tuple[dict[str, Any], ...] = ({}, {"budget": "tokens", "max_tokens": 64})
    for number, budget in enumerate(budgets):
        run = tiny_pair_run(tmp_path / str(number), [{"number": 11, "window": 2, **budget}], rows, batch_size=5)
        run.model = torch.nn.Linear(1, 1)
        batches = _batches(run, 0)
        assert sorted(row for batch in batches for row in batch) == list(range(16))
        assert min(map(len, batches)) > 1
        run.plan.on("after_epoch")[0].after_epoch(run, 0)
        assert isinstance(run.sink, Listed)
        assert "skewed_batches" not in [event.code for event in run.sink.events if isinstance(event, Warned)]
    widths = np.array([60, 3, 3, 3, 60, 3, 3], dtype=np.int64)
    alone, joined = (bucketed(range(7), widths, 2, 9, generator(1), tokens=64, lone=lone) for lone in (True, False))
    assert min(map(len, alone)) == 1
    assert sorted(map(len, joined)) == [2, 5]


def test_label_skew_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    assert label_skew([(0, 1), (2, 3)], labels) == pytest.approx(0.5)
    assert label_skew([(0, 2), (1, 3)], labels) == 0.0


@pytest.mark.parametrize(
    ("task_name", "instructions", "code"),
    [
        ("image_classification", [11], "wrong_task"),
        ("text_classification", [11, 3], "excluded"),
        ("text_classification", [{"number": 11, "budget": "tokens"}, 24], "excluded"),
    ],
)
def test_what_it_cannot_serve_is_refused(task_name: str, instructions: list[Any], code: str) -> None:
    spec = Spec.model_validate({"task": task_name, "dataset": "a", "instructions": instructions})
    with pytest.raises(InvalidPlan) as refused:
        Plan.of(spec)
    assert [fault.code for fault in refused.value.faults] == [code]
