"""Jobs over HTTP: what is refused and how, what is stored, and each move of a job's owner."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.jobs.models import Job
from app.jobs.states import State
from app.settings import Settings
from app.storage import S3Storage
from tests.app.seeds import seed
from tests.bucket import Bucket, SlowBucket, stand_in
from tests.service import SilentBell, awaiting_erasure, put_job
from worker.tasks import Worker

MakeDataset = Callable[..., str]
MakeClient = Callable[..., TestClient]


def spec(dataset_id: str, **changes: Any) -> dict[str, Any]:
    return {"task": "text_classification", "dataset": dataset_id} | changes


def faults(answer: Any) -> dict[str, str]:
    """Code by pointer."""
    assert answer.status_code == 422, answer.text
    assert all(fault["remedy"] for fault in answer.json()["errors"])
    return {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}


def stored(service: FastAPI) -> int:
    with service.state.database.reading() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


@pytest.fixture
def bell(service: FastAPI) -> SilentBell:
    service.state.queue = SilentBell()
    service.state.queue.close = lambda: None
    return service.state.queue  # type: ignore[no-any-return]


def test_a_job_from_submit_to_erasure(
    admin: TestClient, dataset: MakeDataset, worker: Worker, bell: SilentBell, settings: Settings
) -> None:
    ds = dataset()
    answer = admin.post("/v1/jobs", json=spec(ds, instructions=[11], name="n", metadata={"team": "mail"}))
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert bell.rings == 1
    assert (job["state"], job["attempt"], job["receipt_url"], job["artifacts"]) == ("queued", 0, None, [])
    assert job["model"] == "minilm-l6"
    assert job["training"]["learning_rate"] > 0
    assert job["plan"][0]["number"] == 11
    assert admin.delete(f"/v1/jobs/{job['id']}").status_code == 409
    assert admin.delete(f"/v1/datasets/{ds}").status_code == 409

    worker.run_next()
    own = f"/v1/jobs/{job['id']}"
    job = admin.get(own).json()
    assert job["state"] == "succeeded"
    assert job["progress"] == {"step": 12, "total_steps": 12, "fraction": 1.0, "eta_seconds": None}
    assert {artifact["kind"] for artifact in job["artifacts"]} == {"model", "checkpoint", "receipt"}
    receipt = admin.get(job["receipt_url"])
    assert receipt.json() == {"chain": job["result"]["chain"]}
    listed = admin.get(f"{own}/artifacts", params={"limit": 2}).json()
    assert (len(listed["data"]), listed["has_more"]) == (2, True)
    assert "starting at step 0" in admin.get(f"{own}/logs").text
    assert admin.get(f"{own}/logs", params={"tail_bytes": 5}).text == admin.get(f"{own}/logs").text[-5:]

    url = job["artifacts"][0]["url"]
    assert admin.get(url).status_code == 200
    assert admin.delete(own).status_code == 202
    newest = admin.get("/v1/audit").json()["data"][0]
    assert (newest["action"], newest["subject_id"]) == ("job.delete", job["id"])
    assert admin.get(own).status_code == 404
    assert admin.get(url).status_code == 404
    assert not (settings.data_dir / "runs" / job["id"]).exists()
    objects = [path for path in (settings.data_dir / "objects" / "sha256").rglob("*") if path.is_file()]
    assert len(objects) == 1, "only the data set's file is left"
    assert admin.delete(f"/v1/datasets/{ds}").status_code == 204


def test_of_a_log_in_a_bucket_only_the_end_is_read(
    admin: TestClient, service: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = stand_in(monkeypatch, Bucket())
    service.state.storage = S3Storage("bucket", "")
    (tmp_path / "log.txt").write_text("the start\n" * 1000 + "the end\n")
    job_id = put_job(service.state.database, state=State.FAILED)
    with service.state.database.session() as session:
        row = session.get_one(Job, job_id)
        row.log_key = service.state.storage.save(tmp_path / "log.txt").key

    assert admin.get(f"/v1/jobs/{job_id}/logs", params={"tail_bytes": 8}).text == "the end\n"
    assert bucket.handed_out == 8
    assert admin.get(f"/v1/jobs/{job_id}/logs").text == (tmp_path / "log.txt").read_text()
    bucket.objects.clear()
    assert admin.get(f"/v1/jobs/{job_id}/logs").text == ""


def test_nobody_waits_for_a_slow_store_that_erases_a_job(
    admin: TestClient, service: FastAPI, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = stand_in(monkeypatch, SlowBucket(settings.data_dir / "fiftytwo.db"))
    service.state.storage = S3Storage("bucket", "")
    seeds = seed(service, tmp_path)
    files = len(bucket.objects)
    assert admin.delete(f"/v1/jobs/{seeds.job[list(State).index(State.SUCCEEDED)]}").status_code == 202
    assert len(bucket.objects) == files - 2
    assert bucket.in_the_way == []
    assert awaiting_erasure(service.state.database) == set()


def test_every_fault_at_once(admin: TestClient, service: FastAPI, dataset: MakeDataset) -> None:
    body = spec(
        "ds_unknown",
        instructions=[20, 20],
        training={"epochs": 0, "batch_size": "many", "sed": 1},
        webhook={"url": "ftp://example.org"},
        colour="red",
    )
    found = faults(admin.post("/v1/jobs", json=body))
    assert found["/training/epochs"] == "greater_than_equal"
    assert found["/training/sed"] == "unknown_field"
    assert found["/colour"] == "unknown_field"
    assert (found["/webhook/url"], found["/webhook/secret"]) == ("webhook_url", "missing")
    assert found["/dataset"] == "unknown_dataset"
    assert "/training/batch_size" in found
    assert any(pointer.startswith("/instructions") for pointer in found)
    assert stored(service) == 0


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"kind": "aggregate"}, "/kind", "kind_not_available"),
        ({"kind": "bake"}, "/kind", "literal_error"),
        ({"model": "resnet-small"}, "/model", "wrong_task"),
        ({"model": "no such model"}, "/model", "unknown_model"),
        ({"limits": {"max_epsilon": 3}}, "/limits/max_epsilon", "not_applicable"),
        ({"limits": {"confidence": 0.95}}, "/limits/confidence", "not_applicable"),
        ({"metadata": {"k": 1}}, "/metadata/k", "string_type"),
        ({"metadata": {f"k{number}": "" for number in range(17)}}, "/metadata", "too_long"),
        ({"metadata": {"k": "v" * 513}}, "/metadata/k", "string_too_long"),
        ({"name": ""}, "/name", "string_too_short"),
        ({"dataset": {"train": "ds_a"}}, "/dataset/test", "missing"),
        ({"task": "image_classification"}, "/dataset", "wrong_task"),
    ],
)
def test_one_wrong_choice(
    admin: TestClient, service: FastAPI, dataset: MakeDataset, changes: dict[str, Any], pointer: str, code: str
) -> None:
    found = faults(admin.post("/v1/jobs", json=spec(dataset()) | changes))
    assert found.get(pointer) == code, found
    assert stored(service) == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff"])
def test_bodies_that_are_no_job(admin: TestClient, body: bytes) -> None:
    answer = admin.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_data_sets_that_do_not_serve(admin: TestClient, client_for: MakeClient, dataset: MakeDataset) -> None:
    client_for(tenant="other")
    strange = dataset(tenant="other")
    assert faults(admin.post("/v1/jobs", json=spec(strange))) == {"/dataset": "unknown_dataset"}
    parts = {"train": dataset(), "test": dataset(labels=["ham", "eggs"])}
    assert faults(admin.post("/v1/jobs", json=spec("") | {"dataset": parts})) == {"/dataset/test": "labels_differ"}


def test_a_dry_run_stores_nothing(admin: TestClient, service: FastAPI, dataset: MakeDataset) -> None:
    answer = admin.post("/v1/jobs", params={"dry_run": True}, json=spec(dataset(), instructions=[20, 11]))
    assert answer.status_code == 200
    shown = answer.json()
    assert [step["number"] for step in shown["plan"]] == [11, 20]
    assert shown["estimate"]["seconds"] > 0
    assert shown["training"]["epochs"] == 3
    assert stored(service) == 0


def test_the_cap_on_open_jobs(admin: TestClient, service: FastAPI, dataset: MakeDataset) -> None:
    ds = dataset()
    for _ in range(60):
        put_job(service.state.database)
    answer = admin.post("/v1/jobs", json=spec(ds))
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_open_jobs")
    assert int(answer.headers["retry-after"]) > 0


def test_fifty_parallel_posts_with_one_key_make_one_job(
    admin: TestClient, service: FastAPI, dataset: MakeDataset, bell: SilentBell
) -> None:
    ds = dataset()
    answers: list[Any] = []

    def post() -> None:
        answers.append(admin.post("/v1/jobs", json=spec(ds), headers={"Idempotency-Key": "k"}))

    threads = [threading.Thread(target=post) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert (stored(service), bell.rings) == (1, 1)
    other = admin.post("/v1/jobs", json=spec(ds, name="another"), headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_moves_of_the_owner(admin: TestClient, service: FastAPI, dataset: MakeDataset, bell: SilentBell) -> None:
    job = admin.post("/v1/jobs", json=spec(dataset(), auto_start=False)).json()
    own = f"/v1/jobs/{job['id']}"
    assert (job["state"], bell.rings) == ("created", 0)
    assert set(job["links"]) == {"self", "metrics", "events", "logs", "artifacts", "deliveries", "start", "cancel"}
    refused = admin.post(f"{own}/pause")
    assert refused.status_code == 409
    assert "running" in refused.json()["detail"]
    started = admin.post(f"{own}/start")
    assert (started.status_code, started.json()["state"], bell.rings) == (202, "queued", 1)
    assert admin.post(f"{own}/start").status_code == 409
    assert admin.post(f"{own}/cancel").json()["state"] == "cancelled"
    assert admin.post(f"{own}/cancel").status_code == 409
    assert [entry["action"] for entry in admin.get("/v1/audit").json()["data"]][:3] == [
        "job.cancel",
        "job.start",
        "job.create",
    ]


def test_a_move_may_name_the_version_it_means(admin: TestClient, dataset: MakeDataset) -> None:
    own = f"/v1/jobs/{admin.post('/v1/jobs', json=spec(dataset(), auto_start=False)).json()['id']}"
    old = {"If-Match": admin.get(own).headers["etag"]}
    started = admin.post(f"{own}/start", headers=old)
    assert (started.status_code, started.json()["state"]) == (202, "queued")
    assert admin.post(f"{own}/cancel", headers=old).status_code == 412
    assert admin.get(own).json()["state"] == "queued"
    cancelled = admin.post(f"{own}/cancel", headers={"If-Match": started.headers["etag"]})
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert admin.delete(own, headers=old).status_code == 412
    assert admin.delete(own, headers={"If-Match": admin.get(own).headers["etag"]}).status_code == 202


def test_lists_and_filters(admin: TestClient, dataset: MakeDataset) -> None:
    ds = dataset()
    ids = [
        admin.post("/v1/jobs", json=spec(ds, auto_start=team == "a", metadata={"team": team, "x.y": "z"})).json()["id"]
        for team in ("a", "b", "a")
    ]

    def listed(**query: Any) -> list[str]:
        return [job["id"] for job in admin.get("/v1/jobs", params=query).json()["data"]]

    assert listed() == ids[::-1]
    assert listed(order="asc", limit=2) == ids[:2]
    assert listed(order="asc", after=ids[1]) == ids[2:]
    assert listed(state="created") == [ids[1]]
    assert listed(**{"metadata[team]": "a"}) == [ids[2], ids[0]]
    assert listed(**{"metadata[x.y]": "z", "metadata[team]": "b"}) == [ids[1]]
    assert listed(kind="evaluate") == []
    assert admin.get("/v1/jobs", params={"state": "asleep"}).status_code == 422
    for name in ("metadata", "x[y]", "metadatax[y]", "state[y]"):
        assert admin.get("/v1/jobs", params={name: "a"}).status_code == 422, name
    for twice in ("limit=1&limit=2", "metadata[team]=a&metadata[team]=b"):
        told = admin.get(f"/v1/jobs?{twice}&pge=1").json()["errors"]
        assert [one["code"] for one in told] == ["repeated_parameter", "unknown_parameter"]
    for page in ("/v1/datasets", f"/v1/jobs/{ids[0]}", "/v1/keys"):
        answer = admin.get(page, params={"metadata[y]": "1"})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "unknown_parameter"), page


def test_strangers_and_viewers(
    admin: TestClient, service: FastAPI, client_for: MakeClient, worker: Worker, dataset: MakeDataset
) -> None:
    job_id = put_job(service.state.database)
    worker.run_next()
    stranger, viewer = client_for(tenant="other", role="admin"), client_for(role="viewer")
    own = f"/v1/jobs/{job_id}"
    for page in ("", "/metrics", "/events", "/logs", "/receipt", "/artifacts"):
        assert stranger.get(own + page).status_code == 404, page
        assert viewer.get(own + page).status_code == 200, page
    for move in ("start", "cancel", "pause", "resume"):
        assert stranger.post(f"{own}/{move}").status_code == 404
        assert viewer.post(f"{own}/{move}").status_code == 403
    assert stranger.delete(own).status_code == 404
    assert viewer.delete(own).status_code == 403
    assert viewer.post("/v1/jobs", json=spec(dataset())).status_code == 403
    assert stranger.get("/v1/jobs").json()["data"] == []
