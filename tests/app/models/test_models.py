"""Models over HTTP: a trained one is listed with the task of its job."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.jobs.states import State
from tests.app.seeds import seed_artifact, seed_dataset, seed_job


def test_a_trained_model_has_the_task_of_its_job(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    job = seed_job(service, seed_dataset(service, tmp_path), state=State.SUCCEEDED)
    model = seed_artifact(service, tmp_path, "default", job, "model", "model.zip")
    receipt = seed_artifact(service, tmp_path, "default", job, "receipt", "receipt.json")

    shown = admin.get(f"/v1/models/{model}").json()
    assert (shown["task"], shown["job"]) == ("text_classification", job)
    assert admin.get("/v1/models").json()["data"][-1] == shown
    assert admin.get(f"/v1/models/{receipt}").status_code == 404


def test_a_model_that_was_erased_is_shown_by_its_job_no_more(
    service: FastAPI, admin: TestClient, tmp_path: Path
) -> None:
    job = seed_job(service, seed_dataset(service, tmp_path), state=State.SUCCEEDED)
    model = seed_artifact(service, tmp_path, "default", job, "model", "model.zip")
    before = admin.get(f"/v1/jobs/{job}")
    assert [one["id"] for one in before.json()["artifacts"]] == [model]

    assert admin.delete(f"/v1/models/{model}").status_code == 200
    after = admin.get(f"/v1/jobs/{job}", headers={"If-None-Match": before.headers["etag"]})
    assert (after.status_code, after.json()["artifacts"]) == (200, [])


def test_models_come_in_pages(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    job = seed_job(service, seed_dataset(service, tmp_path), state=State.SUCCEEDED)
    made = [seed_artifact(service, tmp_path, "default", job, "model", "model.zip") for _ in range(5)]
    whole = admin.get("/v1/models").json()
    ids = [one["id"] for one in whole["data"]]
    assert (ids[-5:], whole["has_more"]) == (made[::-1], False)
    for limit in (1, 3, len(ids) - 5, len(ids) - 1, len(ids)):
        found: list[str] = []
        more, after = True, dict[str, str]()
        while more:
            page = admin.get("/v1/models", params={"limit": limit, **after}).json()
            assert len(page["data"]) <= limit
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            found += [one["id"] for one in page["data"]]
            more, after = page["has_more"], {"after": page["last_id"]}
        assert found == ids
    oldest = admin.get("/v1/models", params={"order": "asc", "after": made[0], "limit": 2}).json()
    assert ([one["id"] for one in oldest["data"]], oldest["has_more"]) == (made[1:3], True)
    assert admin.get("/v1/models", params={"limit": 201}).status_code == 422
