"""34: one form of text in training and in use, and pictures that answer otherwise once squeezed."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.artifact import replay
from client.canonical import canonical_text
from client.detector import Detector
from engine.errors import InvalidData, InvalidPlan
from engine.instructions.adversarial_defence.i34_feature_squeezing import FeatureSqueezing
from engine.plan import Plan
from engine.rows import Rows
from engine.spec import Spec
from engine.word_attacks import look_alikes
from tests.engine.packaged import digit_run, packaged
from tests.engine.runs import tiny_image_run, tiny_run, trained
from tests.engine.tiny import OWN, tiny_text_rows, tiny_texts
from tests.engine.tiny_run import text_run


def rows(*texts: str) -> Rows:
    made = tiny_text_rows(len(texts))
    return Rows(list(texts), made.ids, made.labels, made.splits, None, made.shards)


def test_training_and_use_see_one_form(tmp_path: Path) -> None:
    run, one = text_run(tmp_path), FeatureSqueezing()
    before = ["plain", "pаypal\u200b now", "ｆｕｌｌ"]
    step = one.preprocess(run)
    assert step is not None
    assert [str(text) for text in one.records(run, rows(*before)).payloads] == [replay([step], text) for text in before]
    assert one.report(run)["rows_changed"] == pytest.approx(2 / 3)


def test_text_of_another_script_is_left_to_its_owner(tmp_path: Path) -> None:
    run, russian = text_run(tmp_path), rows("привет мир", "hello world again", "дом")
    with pytest.raises(InvalidData, match="in another script"):
        FeatureSqueezing().records(run, russian)
    assert list(FeatureSqueezing(force=True).records(run, russian).payloads) == list(russian.payloads)


def test_pictures_have_no_canonical_form(tmp_path: Path) -> None:
    run = tiny_image_run(tmp_path, [34])
    assert run.plan.instructions[0].preprocess(run) is None


def test_a_look_alike_attack_is_undone_exactly(tmp_path: Path) -> None:
    """Accuracy on attacked text comes back whole with the form, and falls without it."""
    run = trained(tiny_run(tmp_path, [{"number": 34, "squeezers": []}], tiny_text_rows(400), epochs=6), tmp_path)
    package = packaged(run, tmp_path)
    clean, labels = tiny_texts(60, seed=4)
    own = {*OWN[0], *OWN[1]}
    attacked = [
        " ".join(look_alikes(word)[0] if word in own and look_alikes(word) else word for word in text.split())
        for text in clean
    ]
    assert sum(a != b for a, b in zip(attacked, clean, strict=True)) > 50
    assert np.array_equal(package.answers(attacked), package.answers(clean))
    package.texts.steps = []
    truth = np.array(labels)
    without = (package.answers(attacked).argmax(1) == truth).mean()
    assert without < (package.answers(clean).argmax(1) == truth).mean() - 0.2


def test_without_the_removal_of_format_characters_hidden_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicodedata, "category", lambda sign: "Lu")
    assert canonical_text("pay\u200bpal") != "paypal"


def test_all_squeezers_of_a_text_give_one_score(tmp_path: Path) -> None:
    choice = {"number": 34, "target_fpr": 0.2, "attack_rows": 20}
    run = trained(tiny_run(tmp_path, [choice], tiny_text_rows(1000), epochs=3), tmp_path)
    package = packaged(run, tmp_path)
    run.plan.instructions[0].audit(run, package, run.model)
    detector = Detector.read(package)
    assert detector.calibration.signals == ("squeezing",)
    assert set(detector.statistics.squeezers.names) == {"canonical", "rare_word_mask", "frequency_substitution"}
    assert detector.statistics.usual is not None
    assert (detector.calibration.raw >= 0).all()
    assert (detector.calibration.raw <= 2).all()
    clean, _ = tiny_texts(300, seed=11)
    assert 0.05 < detector.screen(clean).summary["flagged"] / 300 < 0.36
    assert run.plan.instructions[0].artifacts(run, tmp_path)["detector"].is_dir()


def test_eight_bits_and_squeezers_of_another_task_are_refused() -> None:
    with pytest.raises(ValueError, match="bits"):
        FeatureSqueezing(bits=8)
    body = {"task": "image_classification", "dataset": "none"}
    choice = {"name": "feature_squeezing", "squeezers": ["canonical"]}
    with pytest.raises(InvalidPlan, match="canonical cannot squeeze"):
        Plan.of(Spec.model_validate({**body, "instructions": [choice]}))


def test_it_goes_beside_another_detector_without_its_own() -> None:
    def planned(**parameters: Any) -> Plan:
        chosen = [33, {"name": "feature_squeezing", **parameters}]
        return Plan.of(Spec.model_validate({"task": "text_classification", "dataset": "none", "instructions": chosen}))

    with pytest.raises(InvalidPlan, match="one detector"):
        planned()
    assert planned(squeezers=[]).facts >= {"detector", "canonical_text"}
    assert "audit" not in FeatureSqueezing(squeezers=[]).hooks
    assert "records" not in FeatureSqueezing(canonicalise=False).hooks


def test_attacked_digits_answer_otherwise_once_squeezed(tmp_path: Path) -> None:
    """The measured effect: PGD on real digits, the threshold from clean validation rows."""
    choice = {"number": 34, "target_fpr": 0.1, "attack_rows": 200, "attack_epsilon": 0.08, "bits": 2}
    run = digit_run(tmp_path, [choice])
    run.plan.instructions[0].audit(run, packaged(run, tmp_path), run.model)
    report = run.plan.instructions[0].report(run)
    assert report["attacks"] >= 30
    assert report["auroc"] > 0.65
    assert report["tpr"] > 1.5 * report["fpr"]  # of 100 attacks, so hardly a sharper figure
    assert report["fpr"] < 0.2


def test_a_detector_of_private_rows_is_excluded() -> None:
    assert "differential_privacy" in FeatureSqueezing(squeezers=["median"]).excludes
    assert "differential_privacy" not in FeatureSqueezing(squeezers=[]).excludes
