"""36 where nothing has a class: pictures that no longer find their texts, and slips of the keyboard in texts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.character_noise import noised, noised_rows
from engine.contrastive import ranks, sides, told_apart
from engine.errors import InvalidPlan
from engine.inference import eager_answers
from engine.instructions.adversarial_defence.i36_robustness_audit import RobustnessAudit
from engine.plan import Plan
from engine.ports import Answers, Pair, Payload
from engine.robustness import Setting, attack_rows
from engine.run import Run
from engine.spec import Spec
from tests.engine.documented import undocumented
from tests.engine.runs import tiny_pair_run, trained
from tests.engine.tiny import tiny_pair_rows
from tests.engine.tiny_lm import tiny_lm_run


class Here:
    """A file that answers as the model does, so that none has to be written."""

    folder = Path()

    def __init__(self, run: Run) -> None:
        self.run = run

    def answers(self, inputs: Sequence[Payload], batch_size: int = 32) -> Answers:
        return eager_answers(self.run.task, self.run.model, self.run.task.encode(inputs), batch_size)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("pairs")
    run = tiny_pair_run(folder, [], tiny_pair_rows(320), epochs=6, batch_size=32, learning_rate=3e-3)
    trained(run, folder)
    run.model.eval()
    return run


@pytest.mark.parametrize("attack", ["pgd20", "square"])
def test_pictures_move_a_little_and_find_other_texts(pairs: Run, attack: str) -> None:
    setting = Setting(rows=50, epsilon=0.15, max_queries=60)
    outcome = attack_rows(pairs, Here(pairs), pairs.model, [attack], setting)[attack]
    text, image = sides(Here(pairs).answers(list(pairs.data.test.payloads)))
    alike = told_apart(pairs.data.test.labels)[:, ::-1]
    assert outcome.right.tolist() == (ranks(image, text, alike)[outcome.rows] == 0).tolist()
    assert outcome.right.sum() > 5
    assert not outcome.held[~outcome.right].any()
    assert outcome.fooling
    for place, payload in enumerate(outcome.found):
        assert (payload is None) == bool(outcome.held[place] or not outcome.right[place])
        if payload is None:
            continue
        row = int(outcome.rows[place])
        was = pairs.data.test.payloads[row]
        assert isinstance(payload, Pair)
        assert isinstance(was, Pair)
        assert payload.text == was.text
        near, far = (pairs.task.encode([one])[0][1].astype(int) for one in (was, payload))
        assert np.abs(near - far).max() <= int(0.15 * 255)
        alone = sides(Here(pairs).answers([payload]))[1]
        assert ranks(alone, text, alike, alike[[row], 0])[0] > 0


def test_without_room_no_picture_moves(pairs: Run) -> None:
    outcome = attack_rows(pairs, Here(pairs), pairs.model, ["pgd20"], Setting(rows=50, epsilon=0.0))["pgd20"]
    assert outcome.held.tolist() == outcome.right.tolist()


def test_slips_cost_a_language_model_bits(tmp_path: Path) -> None:
    run = trained(tiny_lm_run(tmp_path, epochs=3), tmp_path)
    run.model.eval()
    one = RobustnessAudit(rows=50, max_words=0.5)
    one.audit(run, Here(run), run.model)
    found = one.evidence(run)["robustness"]
    assert undocumented({"robustness": found}) == []
    assert (found["metric"], found["n"]) == ("bits_per_byte", min(50, len(run.data.test)))
    assert found["robust"] > found["clean"]
    assert 0.1 < found["attacks"][0]["changed_words"] <= 0.7
    assert one.report(run)["robust_bits_per_byte"] == found["robust"]
    one.audit(run, Here(run), run.model)
    assert one.evidence(run)["robustness"] == found, "the slips are drawn by the seed"


def test_a_slip_swaps_letters_and_keeps_all_else() -> None:
    text = "Several words, one 2026 and Zürich: nothing-else moves."
    every, changed, words = noised(text, 1.0, np.random.default_rng(0))
    assert sorted(every) == sorted(text)
    assert every != text
    assert len(every.encode()) == len(text.encode())
    assert every.startswith("S")
    assert "2026" in every
    assert 4 <= changed <= words == 8
    assert noised(text, 0.0, np.random.default_rng(0)) == (text, 0, 8)


def test_a_conversation_keeps_its_shape() -> None:
    turns = (("user", "several words"), ("assistant", "another answer"))
    said = json.dumps([{"role": role, "content": content} for role, content in turns])
    (slipped,), share = noised_rows([said], 1.0, np.random.default_rng(0), chat=True)
    messages = json.loads(str(slipped))
    assert [one["role"] for one in messages] == ["user", "assistant"]
    for message, (_, content) in zip(messages, turns, strict=True):
        assert message["content"] != content
        assert sorted(message["content"]) == sorted(content)
    assert share == 1.0


@pytest.mark.parametrize(
    ("task", "choice", "fields", "fault"),
    [
        ("text_image_pairs", {"attacks": ["homoglyph"]}, {}, "homoglyph cannot change"),
        ("causal_lm", {"attacks": ["square"]}, {}, "square cannot change"),
        ("causal_lm", {}, {"limits": {"min_robust_score": 0.5}}, "bits per byte"),
    ],
)
def test_what_does_not_serve_the_task_is_refused(task: str, choice: Any, fields: dict[str, Any], fault: str) -> None:
    body = {"task": task, "dataset": "none", "instructions": [{"name": "robustness_audit", **choice}], **fields}
    with pytest.raises(InvalidPlan, match=fault):
        Plan.of(Spec.model_validate(body), {"pretrained"})
