"""36: what is left of the accuracy, on a file whose answers can be checked row by row."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.artifact import Package
from engine.errors import InvalidPlan, LimitMissed
from engine.instructions.adversarial_defence.i36_robustness_audit import RobustnessAudit
from engine.picture_attacks import on_grid, png
from engine.plan import Plan
from engine.robustness import Setting, attack_rows
from engine.run import Run
from engine.spec import Spec
from tests.engine.documented import undocumented
from tests.engine.packaged import digit_run, packaged
from tests.engine.runs import tiny_run, trained
from tests.engine.test_deliver import delivered
from tests.engine.tiny import tiny_text_rows

pytestmark = pytest.mark.usefixtures("measured_here")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Package]:
    """A small net on real digits, and its file."""
    folder = tmp_path_factory.mktemp("digits")
    run = digit_run(folder, [36])
    return run, packaged(run, folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Package]:
    folder = tmp_path_factory.mktemp("texts")
    run = trained(tiny_run(folder, [36], tiny_text_rows(400), epochs=6), folder)
    return run, packaged(run, folder)


def audited(made: tuple[Run, Package], **parameters: Any) -> dict[str, Any]:
    """The section of the receipt that an audit with these parameters fills."""
    run, package = made
    one = RobustnessAudit(**parameters)
    one.audit(run, package, run.model)
    section = one.evidence(run)["robustness"]
    assert undocumented({"robustness": section}) == []
    assert one.report(run)["robust_accuracy"] == section["robust"]
    return dict(section)


def test_without_room_robust_is_clean_exactly(digits: tuple[Run, Package]) -> None:
    found = audited(digits, epsilon=0.0, rows=200, max_queries=20)
    assert found["clean"] == found["robust"] > 0.8
    assert found["n"] == 200
    assert all(one["robust"] == found["clean"] for one in found["attacks"])
    truth = digits[0].data.test.labels
    answers = digits[1].answers(list(digits[0].data.test.payloads)).argmax(1)
    assert found["clean"] == pytest.approx((answers == truth).mean(), abs=1e-6)


def test_more_room_leaves_less_and_much_leaves_nothing(digits: tuple[Run, Package]) -> None:
    scores = [audited(digits, epsilon=one, attacks=["pgd20"])["robust"] for one in (0.0, 0.05, 0.1, 0.2, 0.5)]
    assert all(later <= earlier for earlier, later in pairwise(scores))
    assert scores[2] < scores[0] - 0.1
    assert scores[-1] < 0.05


def test_the_worst_is_taken_row_by_row_and_no_search_without_gradients_wins_by_much(
    digits: tuple[Run, Package],
) -> None:
    found = audited(digits, epsilon=0.1, max_queries=100)
    each = {one["name"]: one["robust"] for one in found["attacks"]}
    assert set(each) == {"pgd20", "apgd_ce", "square"}
    assert found["robust"] <= min(each.values())
    assert found["ci95"][0] <= found["robust"] <= found["ci95"][1]
    assert each["square"] >= each["apgd_ce"] - 0.02, "the gradient is masked"


def test_the_same_seed_finds_the_same(digits: tuple[Run, Package]) -> None:
    run, package = digits
    found = []
    for _ in range(2):
        run.state("attacks").clear()
        found.append(attack_rows(run, package, run.model, ["pgd20"], Setting(rows=60, epsilon=0.1))["pgd20"])
    assert found[0].found == found[1].found
    assert found[0].fooling


def test_what_fools_the_file_is_a_picture_of_whole_levels_inside_the_ball(digits: tuple[Run, Package]) -> None:
    run, package = digits
    outcome = attack_rows(run, package, run.model, ["pgd20"], Setting(rows=60, epsilon=0.1))["pgd20"]
    task: Any = run.task
    for place, payload in enumerate(outcome.found):
        if payload is None:
            continue
        row = int(outcome.rows[place])
        was, now = task.encode([run.data.test.payloads[row]])[0], task.encode([payload])[0]
        assert np.abs(was.astype(int) - now.astype(int)).max() <= int(0.1 * 255)
        assert package.answers([payload]).argmax() != run.data.test.labels[row]
        assert outcome.right[place]
        assert not outcome.held[place]


def test_a_change_is_rounded_into_the_ball_and_the_range() -> None:
    original = np.array([[[0, 10, 250]]], np.uint8)
    change = np.array([[[-9.0, 30.7, 30.7]]])
    assert on_grid(original, change, 0.1).tolist() == [[[0, 35, 255]]]
    assert on_grid(original, change, 8 / 255).tolist() == [[[0, 18, 255]]]


def test_a_model_without_gradients_is_attacked_without(digits: tuple[Run, Package]) -> None:
    run, package = digits
    run.state("attacks").clear()
    for weight in run.model.parameters():
        weight.requires_grad_(False)
    forward, task = type(run.task).forward, run.task
    try:
        task.forward = lambda model, batch: forward(task, model, batch).detach()  # type: ignore[method-assign]
        attack_rows(run, package, run.model, ["pgd20"], Setting(rows=50, epsilon=0.2, max_queries=20))
    finally:
        del task.forward
        run.state("attacks").clear()
    assert any("no gradient" in told for told in run.memory["warnings"]["told"])


def test_texts_fall_to_changed_letters_and_what_fell_is_told(texts: tuple[Run, Package]) -> None:
    run, package = texts
    found = audited(texts, rows=50)
    each = {one["name"]: one for one in found["attacks"]}
    assert set(each) == {"word_substitution", "character_swap", "homoglyph"}
    assert found["robust"] <= min(one["robust"] for one in each.values())
    assert each["character_swap"]["succeeded"] > 0
    assert 0 < each["character_swap"]["changed_words"] <= 0.5
    outcome = attack_rows(run, package, run.model, ["character_swap"], RobustnessAudit(rows=50).setting)
    for place, text in enumerate(outcome["character_swap"].found):
        if text is not None:
            assert package.answers([text]).argmax() != run.data.test.labels[outcome["character_swap"].rows[place]]
    assert "examples" not in each["character_swap"]


def test_few_rows_are_warned_of(texts: tuple[Run, Package]) -> None:
    run, _ = texts
    audited(texts, rows=5000, attacks=["homoglyph"])
    few = len(run.data.test) < 50
    assert few is any("rests on" in told for told in run.memory["warnings"]["told"])


def test_the_receipt_has_the_section_and_the_limit_is_held_against_it(tmp_path: Path) -> None:
    choice = {"number": 36, "rows": 50, "attacks": ["character_swap"]}
    run = trained(tiny_run(tmp_path, [choice], tiny_text_rows(600), epochs=4), tmp_path)
    receipt = delivered(run, tmp_path, limits={"min_robust_score": 0.0, "confidence": 0.9})
    section = receipt["robustness"]
    assert {"attacks", "clean", "robust"} <= set(section)
    (check,) = receipt["limits"]["checks"]
    assert check["measured"] == pytest.approx(section["robust"], abs=1e-6)
    assert receipt["plan"][0]["effects"]["robust_accuracy"] == section["robust"]
    with pytest.raises(LimitMissed, match="robust_score is"):
        delivered(run, tmp_path, limits={"min_robust_score": 1.0})


def test_attacks_of_another_task_are_refused() -> None:
    body = {"task": "text_classification", "dataset": "none"}
    choice = {"name": "robustness_audit", "attacks": ["pgd20", "homoglyph"]}
    with pytest.raises(InvalidPlan, match="pgd20 cannot change"):
        Plan.of(Spec.model_validate({**body, "instructions": [choice]}))
    with pytest.raises(ValueError, match="rows"):
        RobustnessAudit(rows=49)


def test_a_picture_comes_back_from_its_file(digits: tuple[Run, Package]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8)).astype(np.uint8)
    task: Any = digits[0].task
    assert np.array_equal(task.encode([png(pixels)])[0], pixels)
