"""Following a job over HTTP: metrics, events, streams, long polls and its ETag."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.jobs import endpoints, lifecycle, streaming, watching
from app.jobs.lifecycle import Batch, Ending, Happening
from tests.service import claimed, job_of, put_job
from worker.tasks import Worker

MakeDataset = Callable[..., str]
MakeClient = Callable[..., TestClient]


def test_metrics(admin: TestClient, service: FastAPI, worker: Worker) -> None:
    job_id = put_job(service.state.database, steps=40, sleep=0)
    worker.run_next()
    own = f"/v1/jobs/{job_id}/metrics"
    whole = admin.get(own).json()
    assert set(whole) == {"train_loss", "learning_rate"}
    assert [point["step"] for point in whole["train_loss"]] == list(range(1, 41))
    assert whole["train_loss"][3]["value"] == 0.25
    assert set(admin.get(own, params={"names": "train_loss,absent"}).json()) == {"train_loss"}
    late = admin.get(own, params={"since_step": 30, "max_points": 5}).json()["train_loss"]
    assert (len(late), late[0]["step"], late[-1]["step"]) == (5, 30, 40)
    assert admin.get(own, params={"max_points": 1}).status_code == 422


def test_events_as_a_list_and_as_a_stream(admin: TestClient, service: FastAPI, worker: Worker) -> None:
    job_id = put_job(service.state.database, steps=4)
    worker.run_next()
    own = f"/v1/jobs/{job_id}/events"
    first = admin.get(own, params={"limit": 2}).json()
    assert [event["id"] for event in first["data"]] == ["1", "2"]
    assert first["has_more"]
    rest = admin.get(own, params={"after": first["last_id"]}).json()
    assert rest["data"][0]["type"] == "phase_started"
    assert rest["data"][-1]["data"]["state"] == "succeeded"
    streamed = admin.get(own, headers={"Accept": "text/event-stream"})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    ids = [line.removeprefix("id: ") for line in streamed.text.splitlines() if line.startswith("id: ")]
    assert ids == [event["id"] for event in first["data"] + rest["data"]]
    assert "event: progress" in streamed.text
    again = admin.get(own, headers={"Accept": "text/event-stream", "Last-Event-ID": ids[-2]}).text
    assert [line for line in again.splitlines() if line.startswith("id: ")] == [f"id: {ids[-1]}"]


def test_long_polls_of_one_job_read_it_once_for_all(
    admin: TestClient, service: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PROGRESS_SECONDS", 0.0)
    database, waiting, reads, present = service.state.database, 8, list[str](), endpoints._present

    def noting(session: Any, tenant: str, of: str) -> Any:
        reads.append(of)
        return present(session, tenant, of)

    monkeypatch.setattr(endpoints, "_present", noting)
    job_id = put_job(database)
    run = claimed(database)
    with ThreadPoolExecutor(waiting) as pool:
        polls = [pool.submit(admin.get, f"/v1/jobs/{job_id}", params={"wait_seconds": 20}) for _ in range(waiting)]
        while sum(len(one.followers) for one in service.state.watch._jobs.values()) < waiting:
            time.sleep(0.01)
        for number in (1, 2):
            lifecycle.record(database, run, Batch(number, progress={"step": number}))
            time.sleep(3 * watching.LOOK_SECONDS)
        lifecycle.finish(database, run, Ending())
        assert {poll.result().json()["state"] for poll in polls} == {"succeeded"}
    # Each before it waits; then together, at the first look (twice: nobody knows how old it is) and after each write.
    assert len(reads) <= waiting + 2 + 2 * 3


def test_a_stream_and_a_long_poll_follow_a_running_job(admin: TestClient, service: FastAPI, worker: Worker) -> None:
    job_id = put_job(service.state.database, steps=30)
    running = threading.Thread(target=worker.run_next)
    running.start()
    streamed = admin.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}).text
    running.join()
    assert '"state":"succeeded"' in streamed
    assert streamed.count("event: progress") > 1

    waiting = put_job(service.state.database)
    cancel = threading.Timer(0.3, lambda: admin.post(f"/v1/jobs/{waiting}/cancel"))
    cancel.start()
    job = admin.get(f"/v1/jobs/{waiting}", params={"wait_seconds": 30}).json()
    cancel.join()
    assert job["state"] == "cancelled"


def test_a_stream_ends_with_the_key_that_asked_for_it(
    admin: TestClient, service: FastAPI, client_for: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "ASKED_AGAIN_SECONDS", 0.0)
    database, reader = service.state.database, client_for(role="viewer")
    own = f"/v1/jobs/{put_job(database)}/events"
    run = claimed(database)
    with ThreadPoolExecutor(1) as pool:
        streamed = pool.submit(reader.get, own, headers={"Accept": "text/event-stream"})
        while not service.state.watch._jobs:
            time.sleep(0.01)
        (key,) = (one["id"] for one in admin.get("/v1/keys").json()["data"] if one["role"] == "viewer")
        assert admin.delete(f"/v1/keys/{key}").status_code == 204
        lifecycle.record(
            database, run, Batch(1, happenings=[Happening("warned", datetime.now(UTC), {"detail": "new"})])
        )
        lifecycle.finish(database, run, Ending())
        heard = streamed.result().text
    assert "a job" in heard
    assert "warned" not in heard
    assert reader.get(own).status_code == 401


def test_a_long_poll_without_a_change_answers_what_is(admin: TestClient, service: FastAPI) -> None:
    job_id = put_job(service.state.database)
    assert admin.get(f"/v1/jobs/{job_id}", params={"wait_seconds": 0.3}).json()["state"] == "queued"
    assert admin.get("/v1/jobs/job_none", params={"wait_seconds": 30}).status_code == 404


def test_an_object_has_an_etag(admin: TestClient, service: FastAPI) -> None:
    own = f"/v1/jobs/{put_job(service.state.database)}"
    etag = admin.get(own).headers["etag"]
    assert admin.get(own, headers={"If-None-Match": etag}).status_code == 304
    assert job_of(service.state.database, own.rpartition("/")[2]).state == "queued"
    admin.post(f"{own}/cancel")
    assert admin.get(own, headers={"If-None-Match": etag}).status_code == 200
