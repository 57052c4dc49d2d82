"""From a job's end to the receiver: what is told, signed how, again when, and to whom never."""

import base64
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from openai import OpenAI
from sqlalchemy import update
from standardwebhooks import Webhook, WebhookVerificationError

from app.database import Database, database_now
from app.jobs import lifecycle, repository
from app.jobs.lifecycle import Ending
from app.jobs.models import Job
from app.jobs.states import CANCEL_IDLE, CANCEL_RUN, State
from app.webhooks import outbox, sending
from app.webhooks import repository as webhooks
from app.webhooks.models import WebhookDelivery
from app.webhooks.sending import deliver_due, wait_before
from tests.app.webhooks.conftest import Receiver, deliver
from tests.service import claimed, let_lapse, owner_moves, put_job

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def subscribe(database: Database, job_id: str, url: str, tenant: str = "default") -> None:
    with database.session() as session:
        outbox.subscribe(session, tenant, job_id, url, SECRET)


def let_all_fall_due(database: Database) -> None:
    with database.session() as session:
        session.execute(update(WebhookDelivery).values(next_try=database_now(plus_seconds=-1)))


def told(client: TestClient, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/jobs/{job_id}/deliveries").json()["data"]
    return found


def test_a_receiver_hears_of_the_end_and_can_verify_it(service: FastAPI, admin: TestClient, receiver: Receiver) -> None:
    job_id = put_job(service.state.database)
    subscribe(service.state.database, job_id, f"{receiver.url}/hook?a=1")
    assert deliver(service) == 0
    run = claimed(service.state.database)
    lifecycle.finish(service.state.database, run, Ending())
    assert (deliver(service), deliver(service)) == (1, 0)

    headers, body = receiver.heard[0]
    event = Webhook(SECRET).verify(body, headers)
    assert (event["type"], event["data"]["id"], event["data"]["state"]) == ("job.succeeded", job_id, "succeeded")
    assert headers["host"] == receiver.url.removeprefix("http://")
    assert headers["connection"] == "close"  # another name of this address would not be verified
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)
    (delivery,) = told(admin, job_id)
    assert (delivery["id"], delivery["state"], delivery["next_try_at"]) == (headers["webhook-id"], "delivered", None)
    assert [(one["attempt"], one["status_code"], one["error"]) for one in delivery["attempts"]] == [(1, 204, None)]
    assert SECRET not in admin.get(f"/v1/jobs/{job_id}/deliveries").text


def test_openais_client_reads_events_of_its_own_family(service: FastAPI, receiver: Receiver) -> None:
    database = service.state.database
    job_id = put_job(database)
    with database.session() as session:
        session.execute(update(Job).values(event_family=outbox.OPENAI))
    subscribe(database, job_id, receiver.url)
    assert owner_moves(database, job_id, CANCEL_IDLE)
    deliver(service)
    headers, body = receiver.heard[0]
    event = OpenAI(api_key="none", webhook_secret=SECRET).webhooks.unwrap(body, headers)
    assert (event.type, event.data.id) == ("fine_tuning.job.cancelled", job_id)  # type: ignore[union-attr]


def test_every_way_to_end_is_told_once_and_no_other_move_is(database: Database) -> None:
    def cancelled_while_it_runs(job_id: str) -> None:
        run = claimed(database)
        owner_moves(database, job_id, CANCEL_RUN)
        lifecycle.finish(database, run, Ending())

    def given_up(job_id: str) -> None:
        claimed(database)
        let_lapse(database, job_id)
        lifecycle.rescue(database, 2)
        claimed(database)
        let_lapse(database, job_id)
        lifecycle.rescue(database, 2)

    def finished_twice(job_id: str) -> None:
        run = claimed(database)
        for _ in range(2):
            assert lifecycle.finish(database, run, Ending(error={"code": "diverged", "title": "t"})) is State.FAILED

    ways: list[tuple[Callable[[str], object], str]] = [
        (lambda job_id: owner_moves(database, job_id, CANCEL_IDLE), "job.cancelled"),
        (cancelled_while_it_runs, "job.cancelled"),
        (given_up, "job.failed"),
        (finished_twice, "job.failed"),
        (lambda _: lifecycle.settle(database, claimed(database)), ""),
    ]
    for end, kind in ways:
        job_id = put_job(database)
        subscribe(database, job_id, "http://127.0.0.1:1/")
        end(job_id)
        with database.reading() as session:
            rows = session.query(WebhookDelivery).where(WebhookDelivery.job_id == job_id).all()
            assert [row.type for row in rows] == [kind][: bool(kind)]


def test_a_rolled_back_end_tells_nothing(database: Database) -> None:
    job_id = put_job(database)
    subscribe(database, job_id, "http://127.0.0.1:1/")

    def end_and_fail() -> None:
        with database.session() as session:
            repository.move(session, job_id, CANCEL_IDLE)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        end_and_fail()
    with database.reading() as session:
        assert session.query(WebhookDelivery).count() == 0


def test_what_fails_is_tried_again_and_given_up_after_a_day(
    service: FastAPI, admin: TestClient, receiver: Receiver
) -> None:
    database = service.state.database
    job_id = put_job(database)
    subscribe(database, job_id, receiver.url)
    owner_moves(database, job_id, CANCEL_IDLE)
    receiver.statuses = [500, 302, *[503] * 20]
    for number in range(1, sending.TRIES + 1):
        let_all_fall_due(database)
        assert deliver(service) == 1
        assert told(admin, job_id)[0]["state"] == ("pending" if number < sending.TRIES else "failed")
    let_all_fall_due(database)
    assert deliver(service) == 0
    (delivery,) = told(admin, job_id)
    assert [one["status_code"] for one in delivery["attempts"]][:3] == [500, 302, 503]
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    assert len(receiver.heard) == sending.TRIES  # the redirect was not followed

    receiver.statuses = []
    assert admin.post(f"/v1/deliveries/{delivery['id']}/redeliver").json()["state"] == "pending"
    assert deliver(service) == 1
    (delivery,) = told(admin, job_id)
    assert (delivery["state"], delivery["attempts"][-1]["attempt"]) == ("delivered", sending.TRIES + 1)


def test_a_tenant_with_much_to_be_told_holds_up_no_other(database: Database) -> None:
    tenants = ["default"] * 3 + ["other"] * 2
    for tenant in tenants:
        job_id = put_job(database, tenant=tenant)
        subscribe(database, job_id, "http://127.0.0.1:1/", tenant)
        owner_moves(database, job_id, CANCEL_IDLE)
    with database.reading() as session:
        found = [session.get_one(WebhookDelivery, one).tenant for one in webhooks.due(session, 4)]
    assert sorted(found) == ["default", "default", "other", "other"]


def test_a_receiver_that_is_gone_for_good_is_believed(service: FastAPI, admin: TestClient, receiver: Receiver) -> None:
    job_id = put_job(service.state.database)
    subscribe(service.state.database, job_id, receiver.url)
    owner_moves(service.state.database, job_id, CANCEL_IDLE)
    receiver.statuses = [410]
    deliver(service)
    assert told(admin, job_id)[0]["state"] == "failed"


def test_the_schedule_takes_about_a_day() -> None:
    waits = [wait_before(tries, lambda: 0.5) for tries in range(1, sending.TRIES)]
    assert waits[:3] == [5, 20, 80]
    assert 20 * 3600 < sum(wait for wait in waits if wait is not None) < 34 * 3600
    assert wait_before(sending.TRIES) is None
    least, most = wait_before(1, lambda: 0.0), wait_before(1, lambda: 1.0)
    assert [least, most] == pytest.approx([4, 6])


def test_the_address_is_checked_again_when_something_is_sent(
    service: FastAPI, admin: TestClient, receiver: Receiver
) -> None:
    job_id = put_job(service.state.database)
    subscribe(service.state.database, job_id, receiver.url)
    owner_moves(service.state.database, job_id, CANCEL_IDLE)
    deliver(service, private=False)
    assert receiver.heard == []
    (delivery,) = told(admin, job_id)
    assert delivery["attempts"][0]["status_code"] is None
    assert "not public" in delivery["attempts"][0]["error"]


def test_the_connection_goes_to_the_very_address_that_was_checked(
    service: FastAPI, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers otherwise the second time is not asked a second time."""
    asked, look_up = [], socket.getaddrinfo

    def once(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if host == "rebinding.example":
            asked.append(host)
            return [(0, 0, 0, "", ("127.0.0.1", 80))]
        return look_up(host, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", once)
    job_id = put_job(service.state.database)
    subscribe(service.state.database, job_id, receiver.url.replace("127.0.0.1", "rebinding.example"))
    owner_moves(service.state.database, job_id, CANCEL_IDLE)
    deliver(service)
    assert asked == ["rebinding.example"]
    assert receiver.heard[0][0]["host"].startswith("rebinding.example:")


def test_a_receiver_that_drips_holds_nobody_up(
    service: FastAPI, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SECONDS", 0.2)
    job_id = put_job(service.state.database)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        subscribe(service.state.database, job_id, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        owner_moves(service.state.database, job_id, CANCEL_IDLE)
        deliver(service)
    assert told(admin, job_id)[0]["attempts"][0]["error"] == "no answer within 0.2 seconds"


def test_two_senders_send_it_once_and_a_late_one_writes_nothing(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = put_job(database)
    subscribe(database, job_id, receiver.url)
    owner_moves(database, job_id, CANCEL_IDLE)
    both = threading.Barrier(2)
    due = webhooks.due

    def together(*arguments: Any) -> Any:
        found = due(*arguments)
        both.wait(10)
        return found

    monkeypatch.setattr(webhooks, "due", together)
    threads = [threading.Thread(target=deliver_due, args=(database,), kwargs={"private": True}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.heard) == 1

    monkeypatch.setattr(webhooks, "due", due)
    with database.session() as session:
        (delivery,) = session.query(WebhookDelivery).all()
        webhooks.again(session, "default", delivery.id)
    with database.session() as session:
        late = webhooks.claim(session, delivery.id, -1)
    assert late is not None
    assert deliver_due(database, private=True) == 1
    with database.session() as session:
        assert not webhooks.settle(session, late, "failed", 0, [])
    assert len(receiver.heard) == 2


def test_the_body_says_no_more_than_it_has_to(service: FastAPI, receiver: Receiver) -> None:
    database = service.state.database
    job_id = put_job(database)
    subscribe(database, job_id, receiver.url)
    run = claimed(database)
    error = {
        "code": "invalid_data",
        "title": "The data cannot be used",
        "detail": "row 3: my private text",
        "errors": [],
    }
    lifecycle.finish(database, run, Ending(error=error))
    deliver(service)
    event = json.loads(receiver.heard[0][1])
    assert event["data"]["error"] == {"code": "invalid_data", "title": "The data cannot be used"}
    assert "private text" not in receiver.heard[0][1].decode()
