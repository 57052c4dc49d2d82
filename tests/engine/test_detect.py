"""The kind `detect` as `python -m engine` runs it: verdicts as a file, beside the command's own of the same folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.artifact import Package
from client.detector import Detector
from engine.detect import detect_inputs
from engine.errors import InvalidData
from engine.events import FileWritten, Finished, Listed, StepDone, Warned
from engine.interrupt import Interrupt
from engine.kinds import DetectFile
from engine.run import Run
from tests.engine.packaged import packaged
from tests.engine.runs import tiny_run, trained
from tests.engine.tiny import tiny_text_rows, tiny_texts, write_rows

TEXTS, _ = tiny_texts(30, seed=21)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Package]:
    """A text run, and its package with a detector."""
    folder = tmp_path_factory.mktemp("made")
    choice = {"number": 33, "target_fpr": 0.2, "fit_rows": 500, "attack_rows": 0}
    run = trained(tiny_run(folder, [choice], tiny_text_rows(1000), epochs=2), folder)
    package = packaged(run, folder)
    run.plan.instructions[0].audit(run, package, run.model)
    return run, package


def detected(
    made: tuple[Run, Package], folder: Path, learned: Path | None = None, /, **fields: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of detections.jsonl, and the job's result with its codes of warnings; `learned`: the training's file."""
    run, package = made
    trained = run.spec.model_dump() | ({} if learned is None else {"dataset": str(learned)})
    parent = {"package": str(package.folder), "checkpoint": str(package.folder), "spec": trained}
    spec = DetectFile.model_validate({"kind": "detect", "model": "job_1", "parent": parent, **fields})
    sink = Listed()
    detect_inputs(spec, folder, sink, job="job_2", interrupt=Interrupt())
    (file,) = [one for one in sink.events if isinstance(one, FileWritten)]
    assert (file.kind, file.filename) == ("detections", "detections.jsonl")
    lines = (folder / file.path).read_text().splitlines()
    assert [one.step for one in sink.events if isinstance(one, StepDone)][-1] == len(lines)
    finished = sink.events[-1]
    assert isinstance(finished, Finished)
    warned = [one.code for one in sink.events if isinstance(one, Warned)]
    return [json.loads(line) for line in lines], {**finished.result, "warned": warned}


def test_the_job_says_what_the_command_says(made: tuple[Run, Package], tmp_path: Path) -> None:
    rows, result = detected(made, tmp_path, inputs={"texts": TEXTS})
    expected = Detector.read(made[1]).screen(TEXTS)
    assert rows == [one.json() for one in expected.detections] == result["detections"]
    assert result["summary"] == dict(expected.summary)
    fields = {"index", "prediction", "confidence", "score", "p_value", "flagged", "signals", "canonical_changed"}
    assert set(rows[0]) == fields
    summary = {"n", "flagged", "target_fpr", "threshold", "calibration_rows", "shift_warning", "detector_sha256"}
    assert summary <= set(result["summary"])


def test_permuted_inputs_get_permuted_verdicts(made: tuple[Run, Package], tmp_path: Path) -> None:
    rows, _ = detected(made, tmp_path / "a", inputs={"texts": TEXTS})
    order = np.random.default_rng(0).permutation(len(TEXTS)).tolist()
    permuted, _ = detected(made, tmp_path / "b", inputs={"texts": [TEXTS[i] for i in order]})
    assert [{**one, "index": 0} for one in permuted] == [{**rows[i], "index": 0} for i in order]


def test_rows_of_a_data_set_are_told_in_the_file_alone(made: tuple[Run, Package], tmp_path: Path) -> None:
    path = write_rows(tiny_text_rows(40, seed=3), tmp_path / "ds_1.parquet", "text_classification")
    rows, result = detected(made, tmp_path, inputs={"dataset": str(path)}, signals=["softmax"], target_fpr=0.3)
    assert len(rows) == 40
    assert "detections" not in result
    assert result["summary"]["target_fpr"] == 0.3
    assert set(rows[0]["signals"]) == {"softmax"}


def test_clean_rows_take_the_place_of_the_detector(made: tuple[Run, Package], tmp_path: Path) -> None:
    path = write_rows(tiny_text_rows(300, seed=8), tmp_path / "ds_2.parquet", "text_classification")
    given = {"inputs": {"texts": TEXTS}, "calibration": str(path), "target_fpr": 0.2}
    rows, result = detected(made, tmp_path / "a", **given)
    assert result["summary"]["calibration_rows"] == 150
    assert set(rows[0]["signals"]) == {"softmax", "perplexity", "reaction"}
    few = write_rows(tiny_text_rows(120, seed=8), tmp_path / "ds_3.parquet", "text_classification")
    rows, result = detected(made, tmp_path / "b", **{**given, "calibration": str(few)})
    assert result["summary"]["calibration_rows"] == 120
    assert set(rows[0]["signals"]) == {"softmax", "reaction"}
    with pytest.raises(InvalidData, match="one half of the calibration rows"):
        detected(made, tmp_path / "c", **{**given, "calibration": str(few), "signals": ["perplexity"]})


def test_rows_that_the_model_was_trained_on_do_not_calibrate(made: tuple[Run, Package], tmp_path: Path) -> None:
    learned = write_rows(tiny_text_rows(1000), tmp_path / "ds_learned.parquet", "text_classification")
    new = write_rows(tiny_text_rows(120, seed=8), tmp_path / "ds_new.parquet", "text_classification")
    given = {"inputs": {"texts": TEXTS[:1]}, "signals": ["softmax"], "target_fpr": 0.2}
    _, result = detected(made, tmp_path / "a", learned, calibration=str(learned), **given)
    assert (result["summary"]["calibration_rows"], result["warned"]) == (200, ["training_rows"])
    _, result = detected(made, tmp_path / "b", learned, calibration=str(new), **given)
    assert (result["summary"]["calibration_rows"], result["warned"]) == (120, [])
    _, result = detected(made, tmp_path / "c", calibration=str(learned), **given)
    assert (result["summary"]["calibration_rows"], result["warned"]) == (1000, ["unknown_training_rows"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target_fpr": 0.05}, "needs 400 clean rows, there are 100"),
        ({"signals": ["squeezing"]}, "has no signal squeezing"),
    ],
)
def test_what_the_detector_cannot_do_is_refused(
    made: tuple[Run, Package], tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidData, match=says) as refused:
        detected(made, tmp_path, inputs={"texts": TEXTS}, **fields)
    assert refused.value.remedy


def test_the_model_is_left_as_it_was(made: tuple[Run, Package], tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in made[1].folder.iterdir()}
    detected(made, tmp_path, inputs={"texts": TEXTS[:3]})
    assert before == {path.name: path.read_bytes() for path in made[1].folder.iterdir()}


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "one_of_two"),
        ({"texts": ["a"], "dataset": "ds_1"}, "one_of_two"),
        ({"texts": ["a", "  "]}, "empty_text"),
        ({"texts": ["a"] * 1001}, "too_long"),
    ],
)
def test_inputs_are_a_data_set_or_up_to_a_thousand_texts(inputs: dict[str, Any], code: str) -> None:
    with pytest.raises(ValueError, match=code):
        DetectFile.model_validate({"kind": "detect", "model": "job_1", "inputs": inputs})
