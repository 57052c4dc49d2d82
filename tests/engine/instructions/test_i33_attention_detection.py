"""33: the detector that ships, read back from the folder alone, and its figures on real digits."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, spearmanr

from client.artifact import Package
from client.detector import ABOUT, TENSORS, Detector
from client.errors import BadPackage
from engine.attention import AttentionFeatures
from engine.errors import InvalidData, InvalidPlan
from engine.events import FileWritten
from engine.instructions.adversarial_defence.i33_attention_detection import AttentionDetection
from engine.plan import Plan
from engine.robustness import neighbours_of
from engine.run import Run
from engine.signal_fits import fit_answers, fit_neighbours
from engine.spec import Spec
from tests.engine.packaged import digit_run, packaged
from tests.engine.runs import tiny_run, trained
from tests.engine.test_deliver import delivered
from tests.engine.tiny import tiny_text_rows, tiny_texts

pytestmark = pytest.mark.usefixtures("measured_here")

RATE = 0.2


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Package]:
    """A text run with its detector in the package."""
    folder = tmp_path_factory.mktemp("texts")
    choice = {"number": 33, "target_fpr": RATE, "fit_rows": 500, "attack_rows": 40}
    run = trained(tiny_run(folder, [choice], tiny_text_rows(1200), epochs=2), folder)
    package = packaged(run, folder)
    run.plan.instructions[0].audit(run, package, run.model)
    return run, package


def test_the_folder_alone_gives_verdicts(texts: tuple[Run, Package], tmp_path: Path) -> None:
    run, package = texts
    detector = Detector.read(Package(package.folder))
    assert detector.calibration.signals == ("softmax", "perplexity", "reaction")
    assert detector.calibration.rows == len(run.data.valid) == 120
    found = detector.screen([str(one) for one in run.data.test.payloads])
    assert found.summary["target_fpr"] == RATE
    assert {one.prediction for one in found.detections} == {"ham", "spam"}
    beside = run.plan.instructions[0].artifacts(run, tmp_path)["detector"]
    for name in (ABOUT, TENSORS):
        assert (beside / name).read_bytes() == (package.folder / name).read_bytes()


def test_clean_rows_are_flagged_at_the_rate(texts: tuple[Run, Package]) -> None:
    """The share lies in the 99 % interval of a binomial at the rate, on rows that set nothing."""
    clean, _ = tiny_texts(400, seed=99)
    flagged = Detector.read(texts[1]).screen(clean).summary["flagged"]
    # The threshold has luck of its own, from 120 rows: the interval is that of both.
    spread = 2.58 * np.sqrt(RATE * (1 - RATE) * (1 / 120 + 1 / 400)) * 400
    assert abs(flagged - RATE * 400) <= max(spread, binom.ppf(0.995, 400, RATE) - RATE * 400)


def test_a_threshold_from_the_fit_rows_flags_too_many(texts: tuple[Run, Package]) -> None:
    """The mutation: ranks among the very rows that the counts were taken on."""
    run, package = texts
    sound = Detector.read(package)
    fitted = [str(one) for one in list(run.data.train.payloads)[:120]]
    surprise = [sound.statistics.ngrams.surprise(_ids(package, one)) for one in fitted]  # type: ignore[union-attr]
    fresh = sound.calibration.raw[:, 1]
    assert np.mean(surprise) < fresh.mean()


def _ids(package: Package, text: str) -> Any:
    return np.array(package.texts.encode([text])[0].ids, dtype=np.int64)


def test_the_score_follows_no_length(texts: tuple[Run, Package]) -> None:
    clean, _ = tiny_texts(200, seed=5)
    scores = Detector.read(texts[1]).scores(clean)
    assert abs(spearmanr(scores, [len(one.split()) for one in clean])[0]) < 0.5


def test_the_report_has_what_was_measured(texts: tuple[Run, Package]) -> None:
    run, _ = texts
    report = run.plan.instructions[0].report(run)
    assert report["calibration_rows"] == 120
    measured = Detector.read(texts[1]).measured
    assert bool(measured) is ("auroc" in report)


def test_the_files_that_are_handed_over_hold_the_detector(tmp_path: Path) -> None:
    choice = {"number": 33, "target_fpr": RATE, "fit_rows": 500, "attack_rows": 0, "mode": "fast"}
    run = trained(tiny_run(tmp_path, [choice], tiny_text_rows(1200)), tmp_path)
    receipt = delivered(run, tmp_path)
    assert {ABOUT, TENSORS} <= {one["path"] for one in receipt["files"]}
    with zipfile.ZipFile(tmp_path / "outputs" / "detector.zip") as archive:
        assert set(archive.namelist()) == {ABOUT, TENSORS}
    told = [one for one in run.sink.events if isinstance(one, FileWritten)]  # type: ignore[attr-defined]  # Listed
    assert {"model", "detector"} <= {one.kind for one in told}
    found = Detector.read(Package(tmp_path / "outputs" / "model.zip")).screen(["word1 prize", "word2 lunch"])
    assert [set(one.signals) for one in found.detections] == [{"softmax", "perplexity"}] * 2


def test_too_few_rows_for_the_rate_are_refused(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, [33], tiny_text_rows(200)), tmp_path)
    with pytest.raises(InvalidData, match=r"a 0\.05 rate needs 400 clean validation rows, there are 20") as refused:
        run.plan.instructions[0].audit(run, packaged(run, tmp_path), run.model)
    assert refused.value.remedy == "give more validation rows"


@pytest.mark.parametrize(
    ("choice", "facts", "says"),
    [
        ({"target_fpr": 0.01}, (), "a 0.01 rate needs 2,000 clean rows, calibration_rows is 500"),
        ({"signals": ["squeezing"]}, (), "squeezing cannot be read"),
        ({}, ("valid_rows:300",), "a 0.05 rate needs 400 clean validation rows, there are 300"),
    ],
)
def test_the_plan_says_so_before_the_run(choice: dict[str, Any], facts: tuple[str, ...], says: str) -> None:
    body = {"task": "text_classification", "dataset": "none"}
    chosen = [{"name": "attention_detection", **choice}]
    with pytest.raises(InvalidPlan, match=says):
        Plan.of(Spec.model_validate({**body, "instructions": chosen}), facts)


def test_it_says_whether_it_reads_training_rows() -> None:
    assert "reads_training_rows" in AttentionDetection().provides
    assert "reads_training_rows" in AttentionDetection(signals=["density"]).provides
    assert "reads_training_rows" not in AttentionDetection(signals=["softmax", "reaction", "substitution"]).provides
    assert "differential_privacy" in AttentionDetection(signals=["softmax", "reaction"]).excludes


def test_attention_can_be_chosen_for_comparison(tmp_path: Path) -> None:
    choice = {"number": 33, "target_fpr": RATE, "fit_rows": 500, "attack_rows": 0, "signals": ["attention"]}
    run = trained(tiny_run(tmp_path, [choice], tiny_text_rows(1000)), tmp_path)
    package = packaged(run, tmp_path)
    run.plan.instructions[0].audit(run, package, run.model)
    clean, _ = tiny_texts(200, seed=5)
    detector = Detector.read(Package(package.folder))
    scores = detector.scores(clean)
    assert np.array_equal(detector.scores(clean[::-1])[::-1], scores)
    assert abs(spearmanr(scores, [len(one.split()) for one in clean])[0]) < 0.3
    flagged = detector.screen(clean).summary["flagged"]
    assert abs(flagged / 200 - RATE) < 3 * np.sqrt(RATE * (1 - RATE) * (1 / 100 + 1 / 200))
    (package.folder / "attention.onnx").write_bytes(b"another")
    with pytest.raises(BadPackage, match="another preparation"):
        Detector.read(Package(package.folder))


def test_features_are_those_of_plain_attention_worked_out_by_hand(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, [], tiny_text_rows(100)), tmp_path)
    model: Any = run.task.exportable(run.model).model
    ids = run.task.collate([run.data.examples["test"][0]], [0])
    with torch.no_grad():
        weights = [one[0].double() for one in model(**_inputs(ids), output_attentions=True).attentions]
        found = AttentionFeatures(model)(ids["input_ids"], ids["attention_mask"])[0]
    n = ids["input_ids"].shape[1]
    expected = []
    for layer in weights:
        for head in layer:
            rows = [head[i] for i in range(1, n - 1)]
            expected.append(sum(-(row * row.log()).sum() for row in rows) / len(rows) / np.log(n))
    assert torch.allclose(
        found[: len(expected)].double(), torch.stack([torch.as_tensor(one) for one in expected]), atol=1e-4
    )
    special = [layer.mean(0)[1:-1][:, [0, -1]].sum(1).mean() for layer in weights]
    assert torch.allclose(found[-len(special) :].double(), torch.stack(special), atol=1e-4)


def _inputs(batch: Any) -> Any:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def test_density_and_substitution_can_be_chosen(tmp_path: Path) -> None:
    choice: dict[str, Any] = {"number": 33, "target_fpr": RATE, "fit_rows": 500, "attack_rows": 0}
    choice["signals"] = ["density", "substitution"]
    run = trained(tiny_run(tmp_path, [choice], tiny_text_rows(1000), epochs=2), tmp_path)
    package = packaged(run, tmp_path)
    run.plan.instructions[0].audit(run, package, run.model)
    clean, _ = tiny_texts(200, seed=5)
    detector = Detector.read(Package(package.folder))
    assert detector.calibration.signals == ("density", "substitution")
    scores = detector.scores(clean)
    assert np.array_equal(detector.scores(clean[::-1])[::-1], scores)
    flagged = detector.screen(clean).summary["flagged"]
    assert abs(flagged / 200 - RATE) < 3 * np.sqrt(RATE * (1 - RATE) * (1 / 100 + 1 / 200))


def test_answers_are_fitted_class_by_class(texts: tuple[Run, Package]) -> None:
    """Slow and obvious: means of the rows that are answered alike; clean rows lie near, an impossible answer far."""
    run, package = texts
    rows = [str(one) for one in list(run.data.train.payloads)[:200]]
    law = fit_answers(package, rows)
    logits = package.answers(rows).astype(np.float64)
    logits -= logits.mean(axis=1, keepdims=True)
    for label in (0, 1):
        assert law.means[label] == pytest.approx(logits[logits.argmax(axis=1) == label].mean(axis=0), abs=1e-6)
    near = [law.distance(one) for one in logits]
    assert law.distance(10 * np.abs(logits).max() * np.array([1.0, -1.0])) > max(near)


def test_neighbours_of_a_token_are_those_of_its_word(texts: tuple[Run, Package]) -> None:
    run, package = texts
    found, near = fit_neighbours(run, run.model, package), neighbours_of(run, run.model)
    vocabulary = package.texts.tokenizer.get_vocab()
    for word in ("prize", "lunch", "word1"):
        expected = [vocabulary[one] for one in near(word)][: found.shape[1]]
        assert [one for one in found[vocabulary[word]].tolist() if one >= 0] == expected
    assert (found[vocabulary["[CLS]"]] == -1).all()


def test_rounded_models_have_no_attention_to_read() -> None:
    chosen = [{"name": "attention_detection", "signals": ["attention"]}, 49]
    spec = Spec.model_validate({"task": "text_classification", "dataset": "none", "instructions": chosen})
    with pytest.raises(InvalidPlan, match="this model is rounded"):
        Plan.of(spec, {"pretrained"})


def test_attacked_digits_stand_out(tmp_path: Path) -> None:
    """The measured effect: attacks that succeed against this very file, at the threshold that ships."""
    choice = {"number": 33, "target_fpr": 0.1, "attack_rows": 200, "attack_epsilon": 0.08}
    run = digit_run(tmp_path, [choice])
    package = packaged(run, tmp_path)
    run.plan.instructions[0].audit(run, package, run.model)
    report = run.plan.instructions[0].report(run)
    assert report["attacks"] >= 30
    assert report["auroc"] > 0.7
    assert report["tpr"] > report["fpr"] + 0.2
    assert report["fpr"] < 0.2
    (told,) = Detector.read(package).measured
    assert told["attack"] == "pgd20"
    assert told["until"] == "first wrong answer"
