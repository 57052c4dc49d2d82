"""Jobs that screen inputs, over HTTP: what they may name, what is stored, what a worker lays out."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.jobs import lifecycle
from app.settings import Settings
from engine.kinds import DetectFile, spec_class
from tests.app.jobs.test_kinds_http import LONG, Json, MakeDataset, artifact, faults, trained
from worker.folder import RunFolder
from worker.tasks import Worker

__all__ = ["trained"]  # a fixture: used by name


def body_of(trained: Json, calibration: str, **changes: Any) -> Json:
    return {
        "kind": "detect",
        "model": trained["id"],
        "inputs": {"texts": ["the parcel is here", "yоur аccount is closed"]},
        "target_fpr": 0.2,
        "calibration": calibration,
        **changes,
    }


def test_a_job_is_stored_as_it_was_asked_for(
    admin: TestClient, trained: Json, dataset: MakeDataset, worker: Worker, settings: Settings
) -> None:
    clean, rows = dataset(), dataset()
    job = admin.post("/v1/jobs", json=body_of(trained, clean, inputs={"dataset": rows}, name=clean)).json()
    assert (job["kind"], job["task"], job["plan"]) == ("detect", "text_classification", [])
    assert job["inputs"] == {"dataset": rows, "texts": None}
    assert (job["target_fpr"], job["control"], job["signals"], job["calibration"]) == (0.2, "fpr", None, clean)

    run = lifecycle.claim(worker.database, "one", 60, 1)
    assert run is not None
    folder = RunFolder(settings.data_dir, worker.storage, run, worker.storage.save)
    folder.prepare()
    written = json.loads(folder.spec_path.read_text())
    spec = spec_class(written).model_validate(written)
    assert isinstance(spec, DetectFile)
    inputs = folder.path / "inputs"
    assert spec.inputs.dataset == str(inputs / f"{rows}.parquet")
    assert spec.calibration == str(inputs / f"{clean}.parquet")
    assert Path(spec.parent.package) == inputs / f"{artifact(trained, 'model')}.zip"
    assert spec.model == trained["id"]
    assert spec.parent.spec.dataset == str(inputs / f"{trained['dataset']}.parquet")  # to know its rows by


def test_texts_reach_the_engine_as_they_are(
    admin: TestClient, trained: Json, dataset: MakeDataset, worker: Worker, settings: Settings
) -> None:
    clean = dataset()
    job = admin.post("/v1/jobs", json=body_of(trained, clean, inputs={"texts": [clean, "и"]})).json()
    assert job["inputs"] == {"dataset": None, "texts": [clean, "и"]}
    run = lifecycle.claim(worker.database, "one", 60, 1)
    assert run is not None
    folder = RunFolder(settings.data_dir, worker.storage, run, worker.storage.save)
    folder.prepare()
    assert json.loads(folder.spec_path.read_text())["inputs"]["texts"] == [clean, "и"]


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"model": "job_unknown"}, "/model", "unknown_model"),
        ({"task": "image_classification"}, "/task", "wrong_task"),
        ({"inputs": {"dataset": "ds_unknown"}}, "/inputs/dataset", "unknown_dataset"),
        ({"inputs": {}}, "/inputs", "one_of_two"),
        ({"inputs": {"texts": ["a", " "]}}, "/inputs/texts/1", "empty_text"),
        ({"inputs": {"texts": ["a"] * 1001}}, "/inputs/texts", "too_long"),
        ({"inputs": {"text": ["a"]}}, "/inputs/text", "unknown_field"),
        ({"calibration": "ds_unknown"}, "/calibration", "unknown_dataset"),
        ({"calibration": None}, "/calibration", "needs_calibration"),
        ({"target_fpr": 0.01}, "/target_fpr", "too_few_rows"),
        ({"target_fpr": 0}, "/target_fpr", "greater_than_equal"),
        ({"signals": ["squeezing"]}, "/signals", "wrong_signal"),
        ({"signals": ["dreams"]}, "/signals/0", "literal_error"),
        ({"signals": []}, "/signals", "too_short"),
        ({"control": "none"}, "/control", "literal_error"),
        ({"instructions": [36]}, "/instructions", "unknown_field"),
    ],
)
def test_a_wrong_screening(
    admin: TestClient, trained: Json, dataset: MakeDataset, changes: Json, pointer: str, code: str
) -> None:
    body = body_of(trained, dataset(rows=500)) | changes
    short, long = admin.post("/v1/jobs", json=body), admin.post("/v1/jobs", json=body, headers=LONG)
    told = faults(short)
    assert told == faults(long)
    assert told[pointer] == code


def test_a_dry_run_tells_what_it_takes(admin: TestClient, trained: Json, dataset: MakeDataset) -> None:
    answer = admin.post("/v1/jobs?dry_run=true", json=body_of(trained, dataset()))
    assert answer.status_code == 200, answer.text
    assert answer.json()["estimate"]["seconds"] > 0
    assert answer.json()["plan"] == []


def test_a_rate_that_the_validation_rows_cannot_hold_is_refused_at_submit(
    admin: TestClient, dataset: MakeDataset
) -> None:
    rows = dataset(splits={"train": 1000, "valid": 300, "test": 100}, rows=1400)
    body = {"task": "text_classification", "dataset": rows, "instructions": [33]}
    assert faults(admin.post("/v1/jobs", json=body)) == {"/instructions/0/target_fpr": "too_few_rows"}
    body["instructions"] = [{"number": 33, "target_fpr": 0.1}]
    assert admin.post("/v1/jobs", json=body).status_code == 202


def test_rows_with_a_budget_are_neither_screened_nor_calibrated_on(
    admin: TestClient, trained: Json, dataset: MakeDataset
) -> None:
    clean, budgeted = dataset(), dataset(budgeted=True)
    body = body_of(trained, budgeted, inputs={"dataset": clean})
    assert faults(admin.post("/v1/jobs", json=body)) == {"/calibration": "needs_privacy"}
    body = body_of(trained, clean, inputs={"dataset": budgeted})
    assert faults(admin.post("/v1/jobs", json=body)) == {"/inputs/dataset": "needs_privacy"}
