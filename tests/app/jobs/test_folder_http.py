"""Compressing a trained classifier that lies in a folder of the models directory, over HTTP."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.jobs import lifecycle
from app.settings import Settings
from engine.kinds import CompressFile, InFolder, spec_class
from tests.engine.test_foreign import foreign
from tests.engine.tiny import tiny_bert
from tests.service import STAND_IN, settings_for
from worker.folder import RunFolder
from worker.tasks import Worker

MakeDataset = Callable[..., str]
Json = dict[str, Any]
LONG = {"content-type": "application/json; charset=utf-8"}
DYNAMIC = {"number": 47, "scheme": "dynamic_int8"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The stand-in engine, and a models directory with a trained classifier and a base without a head."""
    foreign(tmp_path / "models" / "reviews")
    tiny_bert(tmp_path / "models" / "base")
    monkeypatch.setenv("FIFTYTWO_MODELS_DIR", str(tmp_path / "models"))
    ways = {"requests_per_second": 10_000, "engine_command": STAND_IN, "models_dir": tmp_path / "models"}
    return settings_for(tmp_path / "data", **ways)


def body(rows: str, **changed: Any) -> Json:
    return {"kind": "compress", "model": "reviews", "dataset": rows, "instructions": [DYNAMIC]} | changed


def faults(answer: Any) -> dict[str, str]:
    """Code by pointer."""
    assert answer.status_code == 422, answer.text
    assert all(fault["remedy"] for fault in answer.json()["errors"])
    return {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}


def test_the_worker_lays_out_the_rows_and_leaves_the_folder_by_its_name(
    admin: TestClient, dataset: MakeDataset, worker: Worker, settings: Settings
) -> None:
    rows = dataset()
    answer = admin.post("/v1/jobs", json=body(rows, training={"max_length": 64}))
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["model"], job["task"], job["metric"]) == ("reviews", "text_classification", "accuracy")
    assert set(job["parent"]) == {"spec"}
    assert (job["parent"]["spec"]["model"], job["parent"]["spec"]["dataset"]) == ("reviews", rows)

    run = lifecycle.claim(worker.database, "one", 60, 1)
    assert run is not None
    folder = RunFolder(settings.data_dir, worker.storage, run, worker.storage.save)
    folder.prepare()
    spec = json.loads(folder.spec_path.read_text())
    path = str(folder.path / "inputs" / f"{rows}.parquet")
    assert spec["dataset"] == spec["parent"]["spec"]["dataset"] == path
    read = spec_class(spec).model_validate(spec)
    assert isinstance(read, CompressFile)
    assert isinstance(read.parent, InFolder)
    assert (read.parent.spec.base_model, read.parent.spec.training.max_length) == ("reviews", 64)


def test_what_it_makes_is_a_model_like_any_other(admin: TestClient, dataset: MakeDataset, worker: Worker) -> None:
    rows = dataset()
    job = admin.post("/v1/jobs", json=body(rows)).json()
    assert admin.delete(f"/v1/datasets/{rows}").status_code == 409
    worker.run_next()
    assert admin.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    answer = admin.post("/v1/jobs", json={"kind": "evaluate", "model": job["id"]})
    assert answer.status_code == 202, answer.text
    assert answer.json()["parent"]["job"] == job["id"]
    assert answer.json()["parent"]["spec"]["dataset"] == rows


def test_a_dry_run_tells_what_it_costs(admin: TestClient, dataset: MakeDataset) -> None:
    answer = admin.post("/v1/jobs", params={"dry_run": True}, json=body(dataset(), instructions=[45]))
    assert answer.status_code == 200, answer.text
    assert answer.json()["estimate"]["total_steps"] == 200
    assert answer.json()["estimate"]["seconds"] > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "nosuch"}, {"/model": "unknown_model"}),
        ({"model": "base"}, {"/model": "no_head"}),
        ({"model": "minilm-l6"}, {"/model": "no_head"}),
        ({"model": "../reviews"}, {"/model": "unknown_model"}),
        ({"dataset": None}, {"/dataset": "needs_rows"}),
        ({"dataset": "ds_unknown"}, {"/dataset": "unknown_dataset"}),
        ({"model": "nosuch", "dataset": None}, {"/model": "unknown_model", "/dataset": "needs_rows"}),
        ({"task": "causal_lm"}, {"/task": "wrong_task"}),
        ({"instructions": [20]}, {"/instructions/0": "wrong_kind"}),
        ({"export": {"format": "gguf"}}, {"/export": "wrong_format"}),
    ],
)
def test_what_is_wrong_is_told_at_once(
    admin: TestClient, dataset: MakeDataset, changes: Json, expected: dict[str, str]
) -> None:
    asked = body(dataset()) | changes
    short, long = admin.post("/v1/jobs", json=asked), admin.post("/v1/jobs", json=asked, headers=LONG)
    assert faults(short) == faults(long) == expected


def test_rows_of_other_classes_and_tasks(admin: TestClient, dataset: MakeDataset) -> None:
    assert faults(admin.post("/v1/jobs", json=body(dataset(labels=["ham", "eggs"])))) == {"/dataset": "labels_differ"}
    pictures = dataset(task="image_classification")
    assert faults(admin.post("/v1/jobs", json=body(pictures))) == {"/dataset": "wrong_task"}


def test_a_file_is_evaluated_and_never_a_folder(admin: TestClient, dataset: MakeDataset) -> None:
    answer = admin.post("/v1/jobs", json={"kind": "evaluate", "model": "reviews", "dataset": dataset()})
    assert faults(answer) == {"/model": "unknown_model"}
