"""Models over HTTP: a trained one is listed with the task of its job."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.jobs.states import State
from tests.app.seeds import seed_artifact, seed_dataset, seed_job


def test_a_trained_model_has_the_task_of_its_job(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    job = seed_job(service, seed_dataset(service, tmp_path), state=State.SUCCEEDED)
    model = seed_artifact(service, tmp_path, "default", job, "model", "model.zip", "application/zip")
    receipt = seed_artifact(service, tmp_path, "default", job, "receipt", "receipt.json", "application/json")

    shown = admin.get(f"/v1/models/{model}").json()
    assert (shown["task"], shown["job"]) == ("text_classification", job)
    assert admin.get("/v1/models").json()["data"][-1] == shown
    assert admin.get(f"/v1/models/{receipt}").status_code == 404
