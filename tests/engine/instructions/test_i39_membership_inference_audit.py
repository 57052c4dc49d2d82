"""A model that knows its rows by heart is caught, and one that never saw the pool is not."""

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
    kept = set(map(str, run.data.train.payloads))
    gone = [text for text in state["others"]["payloads"] if text not in kept]
    assert len(gone) > 190, "but for texts that stand twice"
    again = _run(tmp_path / "again", pool=400)
    assert again.state("membership_inference_audit") == state


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
