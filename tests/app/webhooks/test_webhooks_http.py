"""Webhooks over HTTP: a job's own, a tenant's, what may be asked of deliveries, and what is never shown."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.webhooks import service as rules
from tests.app.seeds import seed_dataset
from tests.app.webhooks.conftest import Receiver, deliver
from tests.app.webhooks.test_sending import SECRET
from tests.service import put_job

Clients = Callable[..., TestClient]


def spec(dataset: str, **changes: Any) -> dict[str, Any]:
    return {"task": "text_classification", "dataset": dataset, **changes}


def test_a_jobs_own_webhook(service: FastAPI, admin: TestClient, receiver: Receiver, tmp_path: Path) -> None:
    dataset = seed_dataset(service, tmp_path)
    hook = {"url": receiver.url, "secret": SECRET}
    made = admin.post("/v1/jobs", json=spec(dataset, webhook=hook), headers={"Idempotency-Key": "k"})
    assert made.status_code == 202, made.text
    job = made.json()
    assert job["webhook"] == {"url": receiver.url}
    assert admin.post("/v1/jobs", json=spec(dataset)).json()["webhook"] is None
    admin.post(f"{job['links']['self']}/cancel")
    deliver(service)
    assert receiver.heard[0][0]["webhook-id"] == admin.get(job["links"]["deliveries"]).json()["first_id"]
    assert admin.get("/v1/webhooks").json()["data"] == []
    shown = made.text + admin.get(job["links"]["self"]).text + admin.get("/v1/audit").text
    assert SECRET.removeprefix("whsec_") not in shown
    assert admin.delete(f"/v1/jobs/{job['id']}").status_code == 202
    with service.state.database.reading() as session:
        left = [session.scalar(text(f"SELECT count(*) FROM webhook_{name}")) for name in ("endpoints", "deliveries")]
    assert left == [0, 0]


@pytest.mark.parametrize(
    ("hook", "pointer", "code"),
    [
        ({"url": "https://93.184.216.34/"}, "/webhook/secret", "missing"),
        ({"secret": SECRET}, "/webhook/url", "missing"),
        ({"url": "https://93.184.216.34/", "secret": "whsec_short"}, "/webhook/secret", "webhook_secret"),
        ({"url": "https://93.184.216.34/", "secret": SECRET[6:]}, "/webhook/secret", "webhook_secret"),
        ({"url": "ftp://example.org/", "secret": SECRET}, "/webhook/url", "webhook_url"),
        ({"url": "http://127.0.0.1/", "secret": SECRET}, "/webhook/url", "webhook_address"),
        ({"url": "http://[::ffff:10.0.0.1]/", "secret": SECRET}, "/webhook/url", "webhook_address"),
        ({"url": "https://93.184.216.34/", "secret": SECRET, "event": 1}, "/webhook/event", "unknown_field"),
    ],
)
def test_a_wrong_webhook_is_told_with_all_else(
    service: FastAPI, admin: TestClient, hook: dict[str, str], pointer: str, code: str
) -> None:
    service.state.settings = service.state.settings.model_copy(update={"webhook_private_addresses": False})
    for query in ("", "?dry_run=true"):
        refused = admin.post(f"/v1/jobs{query}", json=spec("ds_unknown", webhook=hook))
        assert refused.status_code == 422
        found = {fault["pointer"]: fault["code"] for fault in refused.json()["errors"]}
        assert found == {pointer: code, "/dataset": "unknown_dataset"}
        assert "whsec_short" not in refused.text


def test_a_tenants_webhook_hears_what_it_asked_for(
    service: FastAPI, admin: TestClient, client_for: Clients, receiver: Receiver
) -> None:
    made = admin.post("/v1/webhooks", json={"url": receiver.url, "events": ["job.cancelled"]})
    assert made.status_code == 201
    hook = made.json()
    assert hook["secret"].startswith("whsec_")
    other = admin.post("/v1/webhooks", json={"url": receiver.url, "events": ["job.failed"]}).json()
    every = admin.post("/v1/webhooks", json={"url": f"{receiver.url}/all"}).json()
    stranger = client_for("other")
    stranger.post("/v1/webhooks", json={"url": f"{receiver.url}/stranger"})
    assert "secret" not in admin.get(made.headers["location"]).json()
    job_id = put_job(service.state.database)
    admin.post(f"/v1/jobs/{job_id}/cancel")
    deliver(service)
    assert len(receiver.heard) == 2
    sent = [admin.get(f"/v1/webhooks/{one['id']}/deliveries").json()["data"] for one in (hook, other, every)]
    assert [[one["type"] for one in each] for each in sent] == [["job.cancelled"], [], ["job.cancelled"]]
    assert sent[0][0]["job"] == job_id
    listed = admin.get("/v1/webhooks", params={"order": "asc"}).json()["data"]
    assert [one["id"] for one in listed] == [hook["id"], other["id"], every["id"]]
    assert (listed[0]["events"], listed[2]["events"]) == (["job.cancelled"], None)
    assert admin.delete(f"/v1/webhooks/{hook['id']}").status_code == 204
    assert admin.get(f"/v1/webhooks/{hook['id']}/deliveries").status_code == 404
    assert hook["secret"] not in admin.get("/v1/audit").text


def test_a_secret_is_shown_once(admin: TestClient, receiver: Receiver) -> None:
    answers = [
        admin.post("/v1/webhooks", json={"url": receiver.url}, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert answers[0].json()["secret"] is not None
    assert answers[1].json() == answers[0].json() | {"secret": None}


def test_private_addresses_and_more_than_enough_are_refused(
    service: FastAPI, admin: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MOST_ENDPOINTS", 1)
    assert admin.post("/v1/webhooks", json={"url": receiver.url, "events": []}).status_code == 422
    assert admin.post("/v1/webhooks", json={"url": receiver.url}).status_code == 201
    full = admin.post("/v1/webhooks", json={"url": receiver.url})
    assert (full.status_code, full.json()["code"]) == (409, "too_many_webhooks")
    service.state.settings = service.state.settings.model_copy(update={"webhook_private_addresses": False})
    refused = admin.post("/v1/webhooks", json={"url": receiver.url})
    assert (refused.status_code, refused.json()["code"]) == (422, "webhook_address")


def test_no_log_has_the_address_or_the_secret(
    service: FastAPI, admin: TestClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    secret = admin.post("/v1/webhooks", json={"url": f"{receiver.url}/token-in-the-path"}).json()["secret"]
    admin.post(f"/v1/jobs/{put_job(service.state.database)}/cancel")
    deliver(service)
    assert "attempt 1: delivered" in caplog.text
    assert "token-in-the-path" not in "".join(line for line in caplog.text.splitlines() if "httpx:" not in line)
    assert secret not in caplog.text
