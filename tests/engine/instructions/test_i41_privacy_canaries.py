"""Canaries are in or out by their coins, their guesses bound epsilon from below, and a broken claim fails the job."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import accounting
from engine.accounting import PrivacyBudget
from engine.errors import EngineError, InvalidData, InvalidPlan
from engine.instruction import Exported
from engine.instructions.privacy.i41_privacy_canaries import PrivacyCanaries
from engine.journal import Journal
from engine.plan import Plan
from engine.prepare import begin
from engine.receipt import sections
from engine.run import Run
from engine.spec import Spec
from tests.engine.tiny_run import image_run, text_run, trained

NO_FILE: Any = None  # canaries are looked for in the model, not in its file


def _choice(**given: Any) -> dict[str, Any]:
    return {"name": "privacy_canaries", **given}


def _audit(run: Run) -> dict[str, float]:
    (one,) = run.plan.on("audit")
    exported: Exported = NO_FILE
    one.audit(run, exported, run.model)
    return dict(one.report(run))


def test_those_whose_coin_says_in_are_trained_on_with_a_wrong_label(tmp_path: Path) -> None:
    plain = text_run(tmp_path / "plain", count=1300)
    run = text_run(tmp_path / "with", [_choice(canaries=100)], count=1300)
    state = run.state("privacy_canaries")
    coins = np.array(state["coins"])
    before = dict(zip(plain.data.train.ids.tolist(), plain.data.train.labels.tolist(), strict=True))
    after = dict(zip(run.data.train.ids.tolist(), run.data.train.labels.tolist(), strict=True))
    assert len(run.data.train) == len(plain.data.train) - int((~coins).sum())
    assert 25 < coins.sum() < 75
    wrong = [row for row in after if after[row] != before[row]]
    assert len(wrong) >= 0.9 * coins.sum(), "rows of one content share an id"
    texts = set(map(str, run.data.train.payloads))
    planted = state["payloads"]
    assert {text for text, coin in zip(planted, coins, strict=True) if coin} <= texts


def test_random_tokens_are_nobodys_rows(tmp_path: Path) -> None:
    plain = text_run(tmp_path / "plain", count=1300)
    run = text_run(tmp_path / "with", [_choice(canaries=100, kind="random_tokens")], count=1300)
    assert not set(run.state("privacy_canaries")["payloads"]) & set(map(str, plain.data.train.payloads))


def test_the_coins_come_again_where_a_run_goes_on(tmp_path: Path) -> None:
    first, second = (text_run(tmp_path / name, [_choice(canaries=100)], count=1300) for name in ("a", "b"))
    assert first.state("privacy_canaries") == second.state("privacy_canaries")


def test_a_model_that_learns_its_rows_by_heart_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = _choice(canaries=100, kind="random_tokens", guess_fraction=1.0)
    run = text_run(tmp_path, [choice], count=1300, epochs=1, max_steps=1)
    begin(run, None)
    state = run.state("privacy_canaries")

    class ByHeart(torch.nn.Module):
        """Sure of the label of each canary that is in."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

    right = iter(zip(state["coins"], state["labels"], strict=True))

    def forward(_model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = [next(right) for _ in batch["labels"]]
        return torch.tensor([[9.0 * (coin and label == k) for k in (0, 1)] for coin, label in rows])

    monkeypatch.setattr(run.task, "forward", forward)
    run.model = ByHeart()
    assert run.journal is not None
    found = _audit(run)
    assert found["right_guesses"] > 90
    assert 1.5 < found["lower_bound"] < 3.47
    assert sections(run)["privacy"]["audited_lower_bound"] == found["lower_bound"]


def test_a_picture_can_be_a_canary(tmp_path: Path) -> None:
    run = image_run(tmp_path, [_choice()], count=80, max_steps=2)
    trained(run, tmp_path / "run")
    found = _audit(run)
    assert found["lower_bound"] == 0.0
    assert any("prove little" in text for text in run.state("warnings")["told"])


def _private(folder: Path, **given: Any) -> Run:
    private = {
        "name": "dp_sgd",
        "steps": 10,
        "expected_batch": 30,
        "noise_multiplier": 4.0,
        "delta": 1e-5,
        "scope": "full",
    }
    canaries = _choice(canaries=400, kind="gradient", guess_fraction=0.5, **given)
    return text_run(folder, [private, canaries], count=100, batch_size=32)


def test_gradient_canaries_stay_below_the_claim(tmp_path: Path) -> None:
    """Real runs of 37: what 41 finds inside them is never above what the account says."""
    for number in range(5):
        run = trained(_private(tmp_path / str(number)), tmp_path / str(number) / "run")
        assert run.journal is not None
        claim = accounting.epsilon(run.journal.drawn(), run.state("dp_sgd")["delta"])
        found = _audit(run)
        assert found["lower_bound"] <= claim
        assert sections(run)["privacy"]["audited_lower_bound"] == found["lower_bound"]
        assert sections(run)["privacy"]["epsilon"] == claim


def test_a_run_without_its_noise_fails_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__("engine.releases", fromlist=["privatise"])
    real = module.privatise

    def quiet(sums: list[torch.Tensor], bound: float, sigma: float, divisor: float, normal: Any) -> None:
        real(sums, bound, sigma / 50, divisor, normal)

    monkeypatch.setattr(module, "privatise", quiet)
    run = _private(tmp_path)
    run.plan = Plan.of(run.spec, {"pretrained"})
    trained(run, tmp_path / "run")
    with pytest.raises(EngineError, match="was claimed"):
        _audit(run)


def test_a_canary_that_is_out_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__("engine.releases", fromlist=["privatise"])
    monkeypatch.setattr(module, "privatise", lambda *_: None)
    run = trained(_private(tmp_path), tmp_path / "run")
    state = run.state("privacy_canaries")
    scores, coins = np.array(state["scores"]), np.array(state["coins"])
    assert np.median(scores[coins]) > np.median(scores[~coins]) + 0.1 * 10 * 0.2


@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        ({"kind": "gradient"}, "/instructions/0/kind missing_need"),
        ({"canaries": 100, "guess_fraction": 0.4}, "/instructions/0/guess_fraction too_few_guesses"),
    ],
)
def test_choices_that_prove_nothing_are_refused(chosen: dict[str, Any], fault: str) -> None:
    body = {"task": "text_classification", "dataset": "none", "instructions": [_choice(**chosen)]}
    with pytest.raises(InvalidPlan) as refused:
        Plan.of(Spec.model_validate(body))
    assert [f"{one.pointer} {one.code}" for one in refused.value.faults] == [fault]


def test_more_canaries_than_a_tenth_of_the_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="more than a tenth") as refused:
        text_run(tmp_path, [_choice(canaries=100)], count=200)
    assert refused.value.remedy == "give at least 1,000 training rows, or leave canaries out"


def test_a_tenth_of_the_public_number_is_not_held_against_the_rows_that_there_are(tmp_path: Path) -> None:
    """By their hashes 160 of 200 rows train, or a few less: half of all jobs would fail by the default."""
    run = text_run(tmp_path, count=200)
    run.journal = Journal(budget=PrivacyBudget(rows=180))
    PrivacyCanaries().training_records(run, run.data.train)
    assert 4 < len(run.state("privacy_canaries")["coins"]) < 32
