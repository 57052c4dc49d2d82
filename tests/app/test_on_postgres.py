"""What only Postgres can get wrong: its locks, its own dialect of a statement, and the whole service on it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from app.auth import service as keys
from app.auth.bootstrap import bootstrap
from app.database import Database
from app.erasure import announce, hold
from app.errors import Conflict
from app.identity import Identity
from app.jobs import lifecycle, repository, snapshots
from app.jobs.intake import Intake
from app.jobs.lifecycle import Batch, Ending, Point
from app.jobs.snapshots import Snapshot
from app.jobs.states import CANCEL_IDLE, Move, State
from app.main import create_app
from app.privacy import settlement
from app.privacy.lineage import Content
from app.privacy.models import PrivacyAccount
from app.settings import Settings
from app.storage import Stored
from app.webhooks.models import WebhookEndpoint
from tests import postgres
from tests.app.privacy.conftest import put_dataset
from tests.app.seeds import seed, seed_dataset
from tests.service import awaiting_erasure, claimed, job_of, let_lapse, put_job, tables


@pytest.fixture
def settings(server: postgres.Server, tmp_path: Path) -> Settings:
    """Settings for a fresh database on it."""
    return Settings(data_dir=tmp_path / "data", database_url=server.fresh(), requests_per_second=10_000)


@pytest.fixture
def service(settings: Settings) -> Iterator[FastAPI]:
    """A service on that database."""
    with tables(settings.database):
        made = create_app(settings)
        yield made
        made.state.database.close()


@pytest.fixture
def admin(service: FastAPI) -> Iterator[TestClient]:
    """A client with the first admin key."""
    secret = bootstrap(service.state.database, service.state.settings)
    with TestClient(service, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client


def test_fifty_posts_at_once_with_one_key_make_one_job(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    body = {"task": "text_classification", "dataset": seed_dataset(service, tmp_path)}

    def post(_: int) -> Any:
        return admin.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(admin.get("/v1/jobs").json()["data"]) == 1


def test_a_refused_post_leaves_its_key_to_the_next(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"task": "text_classification", "dataset": "ds_none"}
    assert admin.post("/v1/jobs", json=body, headers=headers).status_code == 422
    body["dataset"] = seed_dataset(service, tmp_path)
    assert admin.post("/v1/jobs", json=body, headers=headers).status_code == 202


def until_it_waits(database: Database, thread: threading.Thread) -> None:
    """Until the thread has ended or somebody waits for a lock."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while thread.is_alive():
        with database.reading() as session:
            if session.scalar(waiting):
                return
        thread.join(0.01)


def test_a_held_file_is_held_until_the_transaction_ends(service: FastAPI) -> None:
    database, entered, order = service.state.database, threading.Event(), []

    def second() -> None:
        with database.session() as session:
            entered.set()
            hold(session, "sha256/ab/cd")
            order.append("second")

    with database.session() as session:
        hold(session, "sha256/ab/cd")
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait(10)
        with database.session() as other:
            hold(other, "sha256/another")
        until_it_waits(database, thread)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_run_that_ends_while_its_job_is_deleted_loses_no_name(
    service: FastAPI, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delete must not see the snapshots of before and the state of after."""
    database = service.state.database
    job_id = put_job(database)
    run = claimed(database)
    stored = Stored("sha256/ab/" + "a" * 64, "a" * 64, 1)
    announce(database, run.owner, stored)

    def end() -> None:
        batch = Batch(1, snapshots=[Snapshot(1, "p", stored.sha256, stored.key)])
        assert lifecycle.record(database, run, batch) is State.RUNNING
        assert lifecycle.finish(database, run, Ending()) is State.SUCCEEDED

    def end_meanwhile(session: Session, of_job: str) -> list[Snapshot]:
        found = snapshots_of(session, of_job)
        ending.start()
        until_it_waits(database, ending)
        return found

    ending, snapshots_of = threading.Thread(target=end), snapshots.of_job
    monkeypatch.setattr(snapshots, "of_job", end_meanwhile)
    answer = admin.delete(f"/v1/jobs/{job_id}")
    ending.join(10)
    named = awaiting_erasure(database)
    with database.reading() as session:
        named |= {one.key for one in snapshots_of(session, job_id)}
    assert (answer.status_code, named) == (409, {stored.key})


def test_a_data_set_is_not_erased_while_a_job_on_it_is_being_stored(
    service: FastAPI, admin: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, stored, statuses = seed_dataset(service, tmp_path), Intake.stored, []
    deleting = threading.Thread(
        target=lambda: statuses.append(admin.delete(f"/v1/datasets/{dataset}").status_code), daemon=True
    )

    def delete_meanwhile(*given: Any) -> Any:
        outcomes = stored(*given)
        deleting.start()
        until_it_waits(service.state.database, deleting)
        return outcomes

    monkeypatch.setattr(Intake, "stored", delete_meanwhile)
    answer = admin.post("/v1/jobs", json={"task": "text_classification", "dataset": dataset})
    deleting.join(10)
    assert (answer.status_code, statuses) == (202, [409])


@pytest.mark.parametrize("reader_first", [True, False])
def test_rows_that_are_read_plainly_while_an_upload_ties_them_to_others_are_known_to_be(
    service: FastAPI, tmp_path: Path, reader_first: bool
) -> None:
    database = service.state.database
    rows = np.arange(1, 301)
    subjects = []
    for name, some in (("a", rows[:100]), ("b", rows[100:200])):
        with database.session() as session:
            subjects.append(Content(some, None).place(session, "default", name)[0])
        put_dataset(service, tmp_path, id=f"ds_{name}", sha256=name, lineage=subjects[-1])

    def read() -> None:
        with database.session() as session:
            settlement.open_to(session, "default", "job_1", ["ds_b"])

    def tie() -> None:
        with database.session() as session:
            Content(rows[50:150], None).place(session, "default", "c")

    with database.session() as session:
        if reader_first:
            settlement.open_to(session, "default", "job_1", ["ds_b"])
        else:
            Content(rows[50:150], None).place(session, "default", "c")
        thread = threading.Thread(target=tie if reader_first else read)
        thread.start()
        until_it_waits(database, thread)
    thread.join(10)
    with database.reading() as session:
        accounts = session.scalars(select(PrivacyAccount)).all()
        assert [(one.subject, one.open_job) for one in accounts] == [("a", "job_1")]


def test_a_webhook_that_is_deleted_while_a_job_ends_holds_up_no_end(service: FastAPI, admin: TestClient) -> None:
    database = service.state.database
    job_id = put_job(database)
    run, told = claimed(database), []
    with database.session() as session:
        row = {"url": "https://example.org/", "secret": "whsec_", "events": [], "created_at": datetime.now(UTC)}
        session.add(WebhookEndpoint(id="wh_1", tenant="default", **row))
    ending = threading.Thread(target=lambda: told.append(lifecycle.finish(database, run, Ending())), daemon=True)
    with database.session() as session:
        session.execute(delete(WebhookEndpoint))
        ending.start()
        until_it_waits(database, ending)
    ending.join(10)
    assert told == [State.SUCCEEDED]
    assert admin.get(f"/v1/jobs/{job_id}/deliveries").json()["data"] == []


def test_of_two_last_admins_that_revoke_each_other_one_stays(service: FastAPI, admin: TestClient) -> None:
    database, refused = service.state.database, list[str]()
    second = admin.post("/v1/keys", json={"name": "second", "role": "admin"}).json()["id"]
    (first,) = (key["id"] for key in admin.get("/v1/keys").json()["data"] if key["id"] != second)

    def revoke(key_id: str) -> None:
        with database.session() as session:
            keys.revoke(session, Identity("default", second, "admin"), key_id)

    def other() -> None:
        try:
            revoke(second)
        except Conflict as error:
            refused.append(error.remedy)

    revoking = threading.Thread(target=other, daemon=True)
    with database.session() as session:
        keys.revoke(session, Identity("default", second, "admin"), first)
        session.flush()
        revoking.start()
        until_it_waits(database, revoking)
    revoking.join(10)
    assert refused == ["make another admin key first"]


def test_a_job_whose_run_is_lost_while_it_is_cancelled_is_cancelled(
    service: FastAPI, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel is two moves, by whether it runs; in between it must not come to be what the first one was for."""
    database, move = service.state.database, repository.move
    job_id = put_job(database)
    claimed(database)
    let_lapse(database, job_id)
    rescuing = threading.Thread(target=lifecycle.rescue, args=(database, 5), daemon=True)

    def lose_meanwhile(session: Session, of_job: str, kind: Move, **given: Any) -> Any:
        made = move(session, of_job, kind, **given)
        if kind is CANCEL_IDLE:
            rescuing.start()
            until_it_waits(database, rescuing)
        return made

    monkeypatch.setattr(repository, "move", lose_meanwhile)
    answer = admin.post(f"/v1/jobs/{job_id}/cancel")
    rescuing.join(10)
    assert (answer.status_code, job_of(database, job_id).state) == (202, State.CANCELLED)


def test_lists_moves_and_erasure(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    seeds = seed(service, tmp_path)
    listed = admin.get("/v1/jobs", params={"metadata[team]": "default", "state": "queued", "order": "asc"}).json()
    assert {job["state"] for job in listed["data"]} == {"queued"}
    jobs = dict(zip(State, seeds.job, strict=True))
    assert admin.post(f"/v1/jobs/{jobs[State.QUEUED]}/cancel").json()["state"] == "cancelled"
    assert admin.delete(f"/v1/jobs/{jobs[State.RUNNING]}").status_code == 409
    assert admin.delete(f"/v1/jobs/{jobs[State.SUCCEEDED]}").status_code == 202
    assert admin.get(f"/v1/artifacts/{seeds.artifact[0]}").status_code == 404
    assert [model["job"] for model in admin.get("/v1/models").json()["data"] if model["job"]] == []


def test_looks_at_a_job_that_goes_on(service: FastAPI, admin: TestClient) -> None:
    own = f"/v1/jobs/{put_job(service.state.database)}"
    assert admin.get(own).json()["state"] == "queued"
    point = Point("train_loss", 1, 0.5, datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC))
    lifecycle.record(service.state.database, claimed(service.state.database), Batch(1, points=[point]))
    for _ in range(2):
        assert admin.get(own).json()["state"] == "running"
        series = {"train_loss": [{"step": 1, "value": 0.5, "at": "2026-01-02T03:04:05.678Z"}]}
        assert admin.get(f"{own}/metrics").json() == series


def test_what_cannot_be_stored_is_refused(admin: TestClient) -> None:
    assert admin.post("/v1/keys", json={"name": "a\0b"}).status_code == 422
    assert admin.get("/v1/jobs", params={"metadata[a]": "x'\"\\"}).json()["data"] == []
