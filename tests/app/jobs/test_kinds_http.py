"""Jobs that begin with a trained model, over HTTP: what they may name, what is stored, what a worker lays out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.jobs import lifecycle
from app.jobs.requests import REQUESTS
from app.settings import Settings
from engine.kinds import SPECS, spec_class
from engine.runners import RUNNERS
from tests.service import put_job
from worker.folder import RunFolder
from worker.tasks import Worker

MakeDataset = Callable[..., str]
Json = dict[str, Any]
LONG = {"content-type": "application/json; charset=utf-8"}
DYNAMIC = {"number": 47, "scheme": "dynamic_int8"}


def faults(answer: Any) -> dict[str, str]:
    """Code by pointer."""
    assert answer.status_code == 422, answer.text
    assert all(fault["remedy"] for fault in answer.json()["errors"])
    return {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}


@pytest.fixture
def trained(admin: TestClient, dataset: MakeDataset, worker: Worker) -> Json:
    """A job of kind `train` that has succeeded."""
    body = {"task": "text_classification", "dataset": dataset(), "instructions": [1], "training": {"seed": 5}}
    job = admin.post("/v1/jobs", json=body).json()
    worker.run_next()
    found: Json = admin.get(f"/v1/jobs/{job['id']}").json()
    assert found["state"] == "succeeded"
    return found


def artifact(job: Json, kind: str) -> str:
    found: str = next(one["id"] for one in job["artifacts"] if one["kind"] == kind)
    return found


def test_every_kind_that_is_served_can_be_run() -> None:
    # A job of kind aggregate is made by the close of a round.
    assert {*REQUESTS, "aggregate"} == set(SPECS) == set(RUNNERS)


@pytest.mark.parametrize("name", ["job", "model", "checkpoint"])
def test_an_evaluation_takes_what_the_training_resolved(
    admin: TestClient, trained: Json, worker: Worker, name: str
) -> None:
    model = trained["id"] if name == "job" else artifact(trained, name)
    answer = admin.post("/v1/jobs", json={"kind": "evaluate", "model": model, "limits": {"min_metric": 0.5}})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["task"], job["model"]) == ("evaluate", "text_classification", model)
    assert (job["metric"], job["dataset"], job["plan"]) == ("accuracy", None, [])
    assert job["parent"]["job"] == trained["id"]
    assert job["parent"]["package"] == artifact(trained, "model")
    assert job["parent"]["checkpoint"] == artifact(trained, "checkpoint")
    assert job["parent"]["spec"]["dataset"] == trained["dataset"]
    assert job["parent"]["spec"]["training"]["seed"] == 5
    worker.run_next()
    assert admin.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    assert [one["id"] for one in admin.get("/v1/jobs", params={"kind": "evaluate"}).json()["data"]] == [job["id"]]


def test_the_worker_puts_paths_in_the_place_of_ids(
    admin: TestClient, trained: Json, dataset: MakeDataset, worker: Worker, settings: Settings
) -> None:
    rows = dataset()
    body = {"kind": "compress", "model": trained["id"], "dataset": rows, "instructions": [45, 47], "name": rows}
    job = admin.post("/v1/jobs", json=body).json()
    assert [step["number"] for step in job["plan"]] == [45, 47]
    assert (job["export"]["format"], job["training"]["seed"]) == ("onnx", 5)

    run = lifecycle.claim(worker.database, "one", 60, 1)
    assert run is not None
    folder = RunFolder(settings.data_dir, worker.storage, run, worker.storage.save)
    folder.prepare()
    spec = json.loads(folder.spec_path.read_text())
    inputs = folder.path / "inputs"
    assert spec["dataset"] == str(inputs / f"{rows}.parquet")
    assert spec["parent"]["spec"]["dataset"] == str(inputs / f"{trained['dataset']}.parquet")
    for part, kind in (("package", "model"), ("checkpoint", "checkpoint")):
        path = Path(spec["parent"][part])
        assert path == inputs / f"{artifact(trained, kind)}.zip"
        assert path.read_bytes().startswith(kind.encode())
    assert spec["model"] == trained["id"]
    read = spec_class(spec).model_validate(spec)
    assert read.kind == "compress"
    assert [one.number for one in read.instructions] == [45, 47]


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"model": "job_unknown"}, "/model", "unknown_model"),
        ({"model": "art_unknown"}, "/model", "unknown_model"),
        ({"model": "minilm-l6"}, "/model", "unknown_model"),
        ({"model": None}, "/model", "string_type"),
        ({"task": "image_classification"}, "/task", "wrong_task"),
        ({"dataset": "ds_unknown"}, "/dataset", "unknown_dataset"),
        ({"dataset": {"train": "ds_a", "test": "ds_b"}}, "/dataset", "string_type"),
        ({"metric": "bits_per_byte"}, "/metric", "wrong_metric"),
        ({"training": {"epochs": 1}}, "/training", "unknown_field"),
        ({"parent": {}}, "/parent", "unknown_field"),
        ({"instructions": [47]}, "/instructions/0", "wrong_kind"),
        ({"instructions": [1]}, "/instructions/0", "wrong_kind"),
        ({"limits": {"max_epsilon": 1}}, "/limits/max_epsilon", "not_applicable"),
        ({"limits": {"min_metrics": 1}}, "/limits/min_metrics", "unknown_field"),
        ({"webhook": {"url": "https://93.184.216.34"}}, "/webhook/secret", "missing"),
        ({"auto_start": 1}, "/auto_start", "bool_type"),
    ],
)
def test_a_wrong_evaluation(admin: TestClient, trained: Json, changes: Json, pointer: str, code: str) -> None:
    body = {"kind": "evaluate", "model": trained["id"]} | changes
    short, long = admin.post("/v1/jobs", json=body), admin.post("/v1/jobs", json=body, headers=LONG)
    assert faults(short) == faults(long) == {pointer: code}


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"instructions": []}, "/instructions", "nothing_to_do"),
        ({"instructions": [20, DYNAMIC]}, "/instructions/0", "wrong_kind"),
        ({"instructions": [DYNAMIC, DYNAMIC]}, "/instructions/1", "repeated_instruction"),
        ({"instructions": [45]}, "/instructions/0", "needs_rows"),
        ({"instructions": [{"number": 47, "scheme": "static_int8"}]}, "/instructions/0", "needs_rows"),
        ({"export": {"format": "gguf"}}, "/export", "wrong_format"),
        ({"training": {"epochs": 0}}, "/training/epochs", "greater_than_equal"),
        ({"compare": "untreated"}, "/compare", "unknown_field"),
    ],
)
def test_a_wrong_compression(admin: TestClient, trained: Json, changes: Json, pointer: str, code: str) -> None:
    sound = {"instructions": [DYNAMIC]}
    body = {"kind": "compress", "model": trained["id"]} | sound | changes
    assert faults(admin.post("/v1/jobs", json=body)) == {pointer: code}


def test_every_fault_of_a_compression_at_once(admin: TestClient, trained: Json) -> None:
    body = {
        "kind": "compress",
        "model": trained["id"],
        "task": "causal_lm",
        "dataset": "ds_unknown",
        "instructions": [20, 20],
        "limits": {"max_size_ratio": 0, "max_epsilon": 1},
        "colour": "red",
    }
    found = faults(admin.post("/v1/jobs", json=body))
    assert {"/limits/max_size_ratio", "/colour", "/dataset", "/instructions/0", "/instructions/1", "/task"} <= set(
        found
    )


def test_a_nearest_name_is_that_of_the_kind(admin: TestClient) -> None:
    answer = admin.post("/v1/jobs", json={"kind": "evaluate", "model": "job_1", "datasets": "ds_1"})
    told = {fault["pointer"]: fault["remedy"] for fault in answer.json()["errors"]}
    assert told["/datasets"] == "did you mean dataset?"
    assert faults(admin.post("/v1/jobs", json={"kind": "evaluate"})) == {"/model": "missing"}


def test_models_of_others_and_jobs_without_a_model(
    admin: TestClient, service: FastAPI, client_for: Callable[..., TestClient], trained: Json
) -> None:
    stranger = client_for(tenant="other")
    for model in (trained["id"], artifact(trained, "model")):
        assert faults(stranger.post("/v1/jobs", json={"kind": "evaluate", "model": model})) == {
            "/model": "unknown_model"
        }
    receipt = artifact(trained, "receipt")
    assert faults(admin.post("/v1/jobs", json={"kind": "evaluate", "model": receipt})) == {"/model": "wrong_artifact"}
    queued = put_job(service.state.database)
    assert faults(admin.post("/v1/jobs", json={"kind": "evaluate", "model": queued})) == {"/model": "no_model"}


def test_rows_that_a_model_cannot_be_scored_on(admin: TestClient, trained: Json, dataset: MakeDataset) -> None:
    for columns, code in (
        ({"labels": ["ham", "eggs"]}, "labels_differ"),
        ({"task": "image_classification"}, "wrong_task"),
    ):
        body = {"model": trained["id"], "dataset": dataset(**columns)}
        for kind in ({"kind": "compress", "instructions": [47]}, {"kind": "evaluate"}):
            assert faults(admin.post("/v1/jobs", json=body | kind)) == {"/dataset": code}


def test_a_model_whose_rows_are_gone_is_scored_on_others(
    admin: TestClient, trained: Json, dataset: MakeDataset
) -> None:
    assert admin.delete(f"/v1/datasets/{trained['dataset']}").status_code == 204
    body = {"kind": "evaluate", "model": trained["id"]}
    assert faults(admin.post("/v1/jobs", json=body)) == {"/model": "test_rows_gone"}
    assert admin.post("/v1/jobs", json=body | {"dataset": dataset()}).status_code == 202
    compress = {"kind": "compress", "model": trained["id"], "dataset": dataset(), "instructions": [47]}
    assert faults(admin.post("/v1/jobs", json=compress)) == {"/model": "test_rows_gone"}


@pytest.mark.parametrize("private", [False, True])
def test_an_evaluation_on_other_rows_is_given_those_of_the_training_unless_they_are_private_by_now(
    admin: TestClient, trained: Json, dataset: MakeDataset, worker: Worker, private: bool
) -> None:
    other = dataset(lineage="other rows")
    if private:
        budget = {"epsilon": 1.0, "delta": 1e-5}
        assert admin.put(f"/v1/privacy/budgets/{trained['dataset']}", json=budget).status_code == 200
    body = {"kind": "evaluate", "model": trained["id"], "dataset": other}
    assert admin.post("/v1/jobs", json=body).status_code == 202
    run = lifecycle.claim(worker.database, "one", 60, 1)
    assert run is not None
    assert other in run.inputs
    assert (trained["dataset"] in run.inputs) is not private


def test_a_job_stays_while_another_needs_its_files(admin: TestClient, trained: Json, worker: Worker) -> None:
    own = f"/v1/jobs/{trained['id']}"
    job = admin.post("/v1/jobs", json={"kind": "evaluate", "model": trained["id"]}).json()
    refused = admin.delete(own)
    assert (refused.status_code, refused.json()["code"]) == (409, "job_in_use")
    assert job["id"] in refused.json()["detail"]
    assert admin.delete(f"/v1/datasets/{trained['dataset']}").status_code == 409
    worker.run_next()
    assert admin.delete(own).status_code == 202


def test_a_dry_run_of_each_kind(admin: TestClient, trained: Json) -> None:
    for body in (
        {"kind": "evaluate", "model": trained["id"]},
        {"kind": "compress", "model": trained["id"], "dataset": trained["dataset"], "instructions": [45, 47]},
    ):
        answer = admin.post("/v1/jobs", params={"dry_run": True}, json=body)
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert (shown["object"], shown["kind"], shown["task"]) == ("dry_run", body["kind"], "text_classification")
        assert [step["number"] for step in shown["plan"]] == body.get("instructions", [])
        assert shown["estimate"]["seconds"] > 0
    assert shown["estimate"]["total_steps"] == 200
    assert len(admin.get("/v1/jobs").json()["data"]) == 1


def test_one_key_makes_one_job_whichever_way(admin: TestClient, trained: Json) -> None:
    body, key = {"kind": "evaluate", "model": trained["id"]}, {"Idempotency-Key": "once"}
    first = admin.post("/v1/jobs", json=body, headers=key)
    again = admin.post("/v1/jobs", json=body, headers=key | LONG)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    other = admin.post("/v1/jobs", json=body | {"name": "another"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_model_of_a_compression_goes_back_to_the_training(admin: TestClient, trained: Json, worker: Worker) -> None:
    body = {"kind": "compress", "model": trained["id"], "dataset": trained["dataset"], "instructions": [47]}
    smaller = admin.post("/v1/jobs", json=body).json()
    worker.run_next()
    job = admin.post("/v1/jobs", json={"kind": "evaluate", "model": smaller["id"]}).json()
    assert job["parent"]["job"] == smaller["id"]
    assert job["parent"]["spec"]["kind"] == "train"
    assert job["parent"]["spec"]["dataset"] == trained["dataset"]


def test_a_compression_can_be_cancelled_and_paused_like_a_training(admin: TestClient, trained: Json) -> None:
    body = {"kind": "compress", "model": trained["id"], "dataset": trained["dataset"], "instructions": [47]}
    job = admin.post("/v1/jobs", json=body | {"auto_start": False}).json()
    own = f"/v1/jobs/{job['id']}"
    assert job["state"] == "created"
    assert admin.post(f"{own}/start").json()["state"] == "queued"
    assert admin.post(f"{own}/cancel").json()["state"] == "cancelled"
    assert admin.delete(own).status_code == 202
