"""A model that knows its rows by heart is caught, and one that never saw the pool is not."""

from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from engine.errors import InvalidPlan
from engine.plan import Plan
from engine.prepare import begin
from engine.run import Run
from engine.spec import Spec
from tests.engine.runs import tiny_run
from tests.engine.tiny import SHARED, rows_of, tiny_texts
from tests.engine.tiny_run import text_run, trained

NO_FILE: Any = None  # the attack is on the model, not on its file


def _choice(**given: Any) -> dict[str, Any]:
    return {"name": "membership_inference_audit", **given}


def _audit(run: Run) -> dict[str, float]:
    (one,) = run.plan.on("audit")
    one.audit(run, NO_FILE, run.model)
    return dict(one.report(run))


def _run(folder: Path, **given: Any) -> Run:
    return text_run(folder, [_choice(**given)], count=700, epochs=1, max_steps=2)


def test_half_of_the_pool_is_not_trained_on(tmp_path: Path) -> None:
    plain = text_run(tmp_path / "plain", count=700)
    run = _run(tmp_path / "with", pool=400)
    state = run.state("membership_inference_audit")
    assert len(run.data.train) == len(plain.data.train) - 200
    assert len(state["members"]) == len(state["others"]["labels"]) == 200
    assert set(state["members"]) <= set(run.data.train.ids.tolist())
    assert not set(state["others"]["payloads"]) & set(map(str, run.data.train.payloads))
    again = _run(tmp_path / "again", pool=400)
    assert again.state("membership_inference_audit") == state


def test_rows_of_one_content_share_a_coin_and_count_once(tmp_path: Path) -> None:
    texts, labels = tiny_texts(350)
    spaced = [text.replace(" ", "  ") for text in texts]  # the same words: of another id, and equal once normalised
    three = [*texts, *texts, *spaced]
    rows = rows_of(three, [one.encode() for one in three], labels * 3)
    run = tiny_run(tmp_path, [_choice(pool=400, attack="loss"), 1], rows, max_steps=1)
    others = run.state("membership_inference_audit")["others"]
    assert not set(others["payloads"]) & set(map(str, run.data.train.payloads)), "what went was trained on"
    contents = set(others["payloads"]) | set(map(str, run.data.train.payloads))
    assert len(others["payloads"]) > 1.5 * len(set(others["payloads"]))
    begin(run, None)
    assert _audit(run)["pool"] == min(400, len(contents))


class _ByHeart(torch.nn.Module):
    """Sure of the label of each row that it holds, and of nothing else."""

    def __init__(self, rows: set[tuple[int, ...]]) -> None:
        super().__init__()
        self.weight, self.rows = torch.nn.Parameter(torch.zeros(1)), rows


def _attack_by_heart(run: Run, held: set[tuple[int, ...]]) -> dict[str, float]:
    begin(run, None)
    labels = {tuple(e.tolist()): int(y) for e, y in zip(run.data.examples["train"], run.data.train.labels, strict=True)}

    def forward(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert isinstance(model, _ByHeart)
        rows = [
            tuple(ids[mask == 1].tolist())
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        return torch.tensor([[6.0 * (row in model.rows and labels.get(row) == k) for k in (0, 1)] for row in rows])

    run.model = _ByHeart(held)
    with patch.object(run.task, "forward", forward):
        return _audit(run)


def test_a_model_that_stores_its_rows_is_caught(tmp_path: Path) -> None:
    run = _run(tmp_path, pool=400, attack="loss")
    found = _attack_by_heart(run, {tuple(example.tolist()) for example in run.data.examples["train"]})
    assert found["true_positive_rate"] > 0.95
    assert found["auc"] > 0.95
    assert found["true_positive_rate_low"] < found["true_positive_rate"] <= found["true_positive_rate_high"]


def test_a_model_that_saw_none_of_the_pool_gives_nothing_away(tmp_path: Path) -> None:
    found = _attack_by_heart(_run(tmp_path, pool=400, attack="loss", false_positive_rate=0.05), set())
    assert found["true_positive_rate_low"] <= 0.05
    assert found["auc"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("attack", ["rmia", "lira"])
def test_references_are_trained_on_halves_by_the_same_plan(
    tmp_path: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(_run(tmp_path, pool=400, references=2, attack=attack), tmp_path / "run")
    module = __import__("engine.instructions.privacy.i39_membership_inference_audit", fromlist=["train"])
    seen: list[Run] = []
    real = module.train

    def noted(inner: Run, *rest: Any) -> None:
        seen.append(inner)
        real(inner, *rest)

    monkeypatch.setattr(module, "train", noted)
    found = _audit(run)
    assert [inner.plan for inner in seen] == [run.plan] * 2
    members = set(run.state("membership_inference_audit")["members"])
    rest = set(run.data.train.ids.tolist()) - members
    assert all(rest <= set(inner.data.train.ids.tolist()) for inner in seen), "what no coin decided on, all see"
    first, second = (Counter(map(str, inner.data.train.payloads)) for inner in seen)
    assert len(first.keys() & second.keys()) <= len(rest), "no text is in both halves"
    assert sum(len(inner.data.train) - len(rest) for inner in seen) == 400, "each row of the pool is in one of the two"
    assert 0 <= found["true_positive_rate"] <= 1
    assert (found["references"], found["pool"]) == (2.0, 400.0)
    assert not np.isnan(found["auc"])


def test_a_small_pool_is_warned_of(tmp_path: Path) -> None:
    run = text_run(tmp_path, [_choice(references=0, attack="loss")], count=60, max_steps=1)
    assert any("says little" in text for text in run.state("warnings")["told"])


def test_it_is_refused_beside_privacy_and_without_references() -> None:
    body = {"task": "text_classification", "dataset": "none", "instructions": [37, 39]}
    with pytest.raises(InvalidPlan, match="plain functions") as refused:
        Plan.of(Spec.model_validate(body))
    assert [fault.code for fault in refused.value.faults] == ["excluded"]
    with pytest.raises(InvalidPlan, match="there are none"):
        Plan.of(Spec.model_validate({**body, "instructions": [_choice(references=0)]}))


@pytest.mark.parametrize("other", [15, 41])
def test_what_makes_rows_of_training_rows_is_refused_beside_it(other: int) -> None:
    body = {"task": "text_classification", "dataset": "none", "instructions": [39, other]}
    with pytest.raises(InvalidPlan, match="membership_inference_audit does not go with") as refused:
        Plan.of(Spec.model_validate(body))
    assert [fault.code for fault in refused.value.faults] == ["excluded"]


def test_references_begin_with_the_whole_vocabulary(tmp_path: Path) -> None:
    """48 makes task and model smaller before the audit; a model that is trained anew has all of its tokens."""
    texts, labels = tiny_texts(200)
    trimming = {"number": 48, "keep_characters": False}
    few = [" ".join(word for word in text.split() if word not in SHARED[8:]) for text in texts]
    rows = rows_of([f"{text} {SHARED[n % 8]}" for n, text in enumerate(few)], [text.encode() for text in texts], labels)
    run = trained(tiny_run(tmp_path, [_choice(), trimming], rows, max_steps=1), tmp_path / "run")
    (trim,) = run.plan.on("compress")
    run.model = trim.compress(run, run.model)
    assert trim.report(run)["rows_removed"] >= 16
    assert 0 <= _audit(run)["true_positive_rate"] <= 1
