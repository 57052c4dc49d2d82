"""The delivery of a whole tiny run: files, receipt, and what is refused."""

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from client import canonical_json
from client.archive import unpack
from client.signature import ensure_key, public_key
from client.verify import verify
from engine import deliver as delivery
from engine.archive import entry
from engine.data import Source
from engine.deliver import check_exported, deliver
from engine.errors import LimitMissed, WrongExport
from engine.events import FileWritten, Listed, PhaseStarted
from engine.inference import eager_answers
from engine.models import Base
from engine.run import Run
from engine.spec import Spec
from engine.tasks.classification import Classification
from tests.engine.documented import undocumented
from tests.engine.runs import tiny_image_run, tiny_run, trained
from tests.engine.tiny import tiny_image_rows, tiny_text_rows, write_rows

COUNT = 200
CONTRADICTED = Classification().contradicted


def delivered(run: Run, folder: Path, reference: Any = None, **changed: Any) -> dict[str, Any]:
    """Deliver a trained run whose rows lie in a file; `changed` fields of the spec are put in last."""
    path = write_rows(_rows(run), folder / "ds_1.parquet", run.spec.task)
    run.spec = Spec.model_validate({**run.spec.model_dump(), "dataset": str(path), **changed})
    base = Base(run.spec.base_model, folder / "base" if run.task.pretrained else None)
    return deliver(run, folder, [Source.open(path)], base, "job_1", reference)


def _rows(run: Run) -> Any:
    """Train, valid and test rows behind one another."""
    parts = [run.data.rows(split) for split in ("train", "valid", "test")]
    whole = parts[0].take(np.arange(0))
    return type(whole)(
        payloads=[payload for part in parts for payload in part.payloads],
        ids=np.concatenate([part.ids for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        splits=np.concatenate([part.splits for part in parts]),
        groups=None,
        shards=np.concatenate([part.shards for part in parts]),
    )


def learned(folder: Path, instructions: Sequence[Any] = ()) -> Run:
    return trained(tiny_run(folder, instructions, tiny_text_rows(COUNT), epochs=8), folder)


def foreign_answers(package: Path, texts: Sequence[str]) -> list[int]:
    """What a stranger's few lines of onnxruntime answer."""
    tokenizer = Tokenizer.from_file(str(package / "tokenizer.json"))
    tokenizer.enable_truncation(json.loads((package / "config.json").read_text())["max_length"])
    session, answers = onnxruntime.InferenceSession(str(package / "model.onnx")), []
    for text in texts:
        row = tokenizer.encode(text)
        feeds = {"input_ids": np.array([row.ids]), "attention_mask": np.array([row.attention_mask])}
        answers.append(int(session.run(["logits"], feeds)[0].argmax()))
    return answers


def test_a_rounded_text_job_is_delivered_whole(tmp_path: Path) -> None:
    run = learned(tmp_path, [1, 49, 51])
    receipt = delivered(run, tmp_path, include_inputs=True, limits={"min_agreement": 0.5, "max_size_ratio": 0.6})
    assert isinstance(run.sink, Listed)
    phases = [event.phase for event in run.sink.events if isinstance(event, PhaseStarted)]
    assert phases[-4:] == ["compress", "export", "measure", "receipt"]
    told = {event.kind: event for event in run.sink.events if isinstance(event, FileWritten)}
    assert set(told) == {"model", "checkpoint", "receipt", "report"}
    for event in told.values():
        about = entry(tmp_path / event.path)
        assert (about.sha256, about.size_bytes) == (event.sha256, event.size_bytes)
    stored = (tmp_path / "outputs" / "receipt.json").read_bytes()
    assert stored == canonical_json.encode(json.loads(stored)) == canonical_json.encode(receipt)
    assert undocumented(receipt) == []
    with zipfile.ZipFile(tmp_path / "outputs" / "model.zip") as archive:
        archive.extractall(tmp_path / "package")
    names = {path.name for path in (tmp_path / "package").iterdir()}
    assert names == {"model.onnx", "tokenizer.json", "labels.json", "config.json", "MODEL_CARD.md", "receipt.json"}
    listed = {one["path"]: one for one in receipt["files"]}
    assert set(listed) == names - {"receipt.json"}
    assert all(entry(tmp_path / "package" / name).sha256 == one["sha256"] for name, one in listed.items())
    config = json.loads((tmp_path / "package" / "config.json").read_text())
    assert [step["name"] for step in config["preprocess"]] == ["text_normalization"]

    texts, truth = list(run.data.test.payloads), run.data.test.labels
    foreign = foreign_answers(tmp_path / "package", [str(text) for text in texts])
    quality = receipt["quality"]
    assert quality["exported"]["value"] == pytest.approx(float(np.mean(np.array(foreign) == truth)), abs=1e-6)
    assert quality["exported"]["n"] == quality["reference"]["n"] == len(truth)
    assert quality["reference"]["kind"] == "trained_float"
    assert len(quality["golden"]) == min(20, len(truth))
    by_id = {str(one): foreign[i] for i, one in enumerate(run.data.test.ids)}
    assert all(run.task.labels[by_id[one["id"]]] == one["label"] for one in quality["golden"])
    assert all(one["text"] in texts for one in quality["golden"])
    size = receipt["size"]
    assert size["exported_bytes"] == listed["model.onnx"]["size_bytes"]
    assert size["package_bytes"] == sum(one["size_bytes"] for one in receipt["files"])
    assert size["ratio"] == pytest.approx(size["exported_bytes"] / size["reference_bytes"], abs=1e-6)
    assert receipt["latency"]["runs"] >= 8
    assert [one["name"] for one in receipt["ladder"]] == ["trained"]
    assert all(one["bytes"] > 0 and one["latency_ms"] > 0 and 0 <= one["score"] <= 1 for one in receipt["ladder"])
    assert receipt["limits"]["passed"]
    assert {one["name"] for one in receipt["limits"]["checks"]} == {"min_agreement", "max_size_ratio", "smaller_file"}
    assert receipt["plan"][1]["effects"]["quantized_layers"] > 10
    assert not (tmp_path / "work").exists()


def test_pictures_are_delivered_and_compared_with_a_twin(tmp_path: Path) -> None:
    run = trained(tiny_image_run(tmp_path, [49], tiny_image_rows(100)), tmp_path)
    twin = np.eye(2, dtype=np.float32)[run.data.test.labels]
    receipt = delivered(run, tmp_path, reference=twin)
    assert receipt["quality"]["reference"]["kind"] == "untreated_twin"
    assert receipt["quality"]["reference"]["value"] == 1.0
    assert "preprocessor_config.json" in {one["path"] for one in receipt["files"]}
    flipped = receipt["quality"]["flipped"]
    assert all("text" not in one for one in flipped)
    assert len(flipped) == round((1 - receipt["quality"]["agreement"]) * len(run.data.test))


@pytest.mark.usefixtures("measured_here")
def test_a_missed_limit_is_raised_after_the_files_are_whole(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path), tmp_path)
    with pytest.raises(LimitMissed) as caught:
        delivered(run, tmp_path, limits={"max_size_bytes": 10, "min_metric": 0.0})
    (fault,) = caught.value.faults
    assert fault.pointer == "/limits/max_size_bytes"
    assert isinstance(run.sink, Listed)
    assert len([event for event in run.sink.events if isinstance(event, FileWritten)]) == 4
    receipt = json.loads((tmp_path / "outputs" / "receipt.json").read_bytes())
    assert not receipt["limits"]["passed"]


@pytest.mark.usefixtures("measured_here")
def test_a_plan_that_compresses_without_a_smaller_file_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_save_untouched", lambda fresh, folder, **_: _saved_as(fresh, folder, 1000))
    with pytest.raises(LimitMissed, match=r"the untouched model 1,000"):
        delivered(trained(tiny_run(tmp_path, [49]), tmp_path), tmp_path)


def _saved_as(fresh: Any, folder: Path, size: int) -> int:
    fresh.save_pretrained(folder)
    return size


@pytest.mark.usefixtures("measured_here")
def test_a_delivered_folder_is_signed_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ensure_key(tmp_path / "receipt_key.pem")
    monkeypatch.setenv("FIFTYTWO_RECEIPT_KEY_FILE", str(key))
    receipt = delivered(trained(tiny_run(tmp_path), tmp_path), tmp_path)
    assert receipt["signature"]["public_key"] == public_key(key)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    shutil.copy(tmp_path / "outputs" / "model.zip", folder / "model.zip")
    unpack(folder / "model.zip", folder)
    found = verify(folder, public_key(key))
    assert "MODEL_CARD.md" in found.files
    page = (tmp_path / "outputs" / "report.html").read_text()
    assert f"{receipt['size']['exported_bytes']:,}" in page
    assert page.count("<polyline") >= 3


@pytest.mark.usefixtures("measured_here")
def test_delivering_twice_gives_equal_checkpoints(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path), tmp_path)
    contents = []
    for _ in range(2):
        delivered(run, tmp_path)
        with zipfile.ZipFile(tmp_path / "outputs" / "model.zip") as archive:
            contents.append(((tmp_path / "outputs" / "checkpoint.zip").read_bytes(), archive.read("model.onnx")))
    assert contents[0] == contents[1]


def test_an_fp32_file_must_give_the_same_logits() -> None:
    expected = np.array([[2.0, -1.0], [0.5, 0.4]], dtype=np.float32)
    check_exported(CONTRADICTED, expected, expected + 5e-4, exact=True)
    with pytest.raises(WrongExport, match="differ by"):
        check_exported(CONTRADICTED, expected, expected + np.float32(0.01), exact=True)
    check_exported(CONTRADICTED, expected, expected + np.float32(0.01), exact=False)


def test_a_file_that_answers_one_class_is_refused_and_one_that_errs_at_ties_is_not() -> None:
    drawn = np.random.default_rng(0)
    expected = np.where(drawn.random((800, 1)) < 0.12, [[-2.0, 2.0]], [[2.0, -2.0]]).astype(np.float32)
    ham = np.tile(np.array([[2.0, -2.0]], np.float32), (800, 1))
    with pytest.raises(WrongExport, match="contradicts"):
        check_exported(CONTRADICTED, expected, ham, exact=False)
    close = drawn.normal(0, 0.1, (800, 2)).astype(np.float32)
    check_exported(CONTRADICTED, close, close[:, ::-1].copy(), exact=False)
    with pytest.raises(WrongExport, match="no numbers"):
        check_exported(CONTRADICTED, expected, expected * np.float32("nan"), exact=False)
    for exact in (True, False):  # no file is like a model that answers nothing
        with pytest.raises(WrongExport, match="own answers"):
            check_exported(CONTRADICTED, expected * np.float32("nan"), expected, exact=exact)


@pytest.mark.usefixtures("measured_here")
def test_the_expected_answers_are_of_the_model_that_is_exported(tmp_path: Path) -> None:
    run = learned(tmp_path, [{"name": "post_training_quantization", "calibration_rows": 32}])
    before = eager_answers(run.task, run.model, run.data.examples["test"])
    receipt = delivered(run, tmp_path)
    after = eager_answers(run.task, run.model, run.data.examples["test"])
    assert not np.allclose(before, after)
    truth = run.data.test.labels
    assert receipt["quality"]["reference"]["value"] == pytest.approx(
        float((before.argmax(1) == truth).mean()), abs=1e-6
    )
    assert receipt["quality"]["exported"]["value"] == pytest.approx(float((after.argmax(1) == truth).mean()), abs=1e-6)
