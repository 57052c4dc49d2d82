"""Keys: who makes them for whom, what each role may do, how they stop; and that every write is in the audit log."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.auth.bootstrap import bootstrap
from app.auth.keyring import MEMORY_SECONDS, KeyRing
from app.auth.models import Key
from app.auth.rate import RateLimit
from app.idempotency import IdempotencyKey
from app.settings import Settings

Clients = Callable[..., TestClient]


def test_without_a_key_there_is_nothing(service: FastAPI) -> None:
    for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer no"}):
        answer = TestClient(service).get("/v1/keys", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["error"]["type"] == "authentication_error"


def test_the_first_key_is_made_once(service: FastAPI, settings: Settings) -> None:
    secret = bootstrap(service.state.database, settings)

    assert secret is not None
    assert secret.startswith("ftw_")
    assert bootstrap(service.state.database, settings) is None


def test_the_operators_first_key_is_not_shown(service: FastAPI, settings: Settings) -> None:
    given = settings.model_copy(update={"bootstrap_key": Settings(bootstrap_key="given-by-the-operator").bootstrap_key})

    assert bootstrap(service.state.database, given) is None
    answer = TestClient(service).get("/v1/keys", headers={"Authorization": "Bearer given-by-the-operator"})
    assert answer.json()["data"][0]["role"] == "admin"


def test_a_secret_is_shown_once_and_stored_nowhere(admin: TestClient, service: FastAPI) -> None:
    body = {"name": "ci", "role": "viewer"}
    made = admin.post("/v1/keys", json=body, headers={"Idempotency-Key": "one"})
    again = admin.post("/v1/keys", json=body, headers={"Idempotency-Key": "one"})
    secret = made.json()["secret"]

    assert made.status_code == again.status_code == 201
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == made.json() | {"secret": None}
    with service.state.database.reading() as session:
        stored = session.scalars(select(Key.secret_sha256)).all()
        replies = session.scalars(select(IdempotencyKey.body)).all()
    assert KeyRing.digest(secret) in stored
    assert all(secret not in text for text in [*stored, *replies])
    assert secret not in admin.get("/v1/keys").text + admin.get(made.headers["location"]).text


def test_roles_reach_only_so_far(admin: TestClient, client_for: Clients) -> None:
    viewer, member = client_for(role="viewer"), client_for(role="member")

    assert viewer.get("/v1/datasets").status_code == 200
    for client in (viewer, member):
        assert client.get("/v1/keys").status_code == 403
        assert client.get("/v1/audit").status_code == 403
        assert client.post("/v1/keys", json={"name": "mine"}).status_code == 403
    assert viewer.post("/v1/datasets", data={"task": "text_classification"}).status_code == 403
    assert admin.get("/v1/audit").status_code == 200


def test_an_admin_of_another_tenant_sees_and_makes_only_its_own(admin: TestClient, client_for: Clients) -> None:
    other = client_for("other", "admin")
    mine = admin.get("/v1/keys").json()["data"][-1]["id"]

    assert {key["tenant"] for key in other.get("/v1/keys").json()["data"]} == {"other"}
    assert other.post("/v1/keys", json={"name": "x"}).json()["tenant"] == "other"
    assert other.post("/v1/keys", json={"name": "x", "tenant": "default"}).status_code == 403
    assert other.get(f"/v1/keys/{mine}").status_code == 404
    assert other.delete(f"/v1/keys/{mine}").status_code == 404


def test_a_revoked_key_stops_at_once(admin: TestClient) -> None:
    made = admin.post("/v1/keys", json={"name": "short-lived"}).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    assert admin.get("/v1/datasets", headers=headers).status_code == 200

    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert admin.get("/v1/datasets", headers=headers).status_code == 401
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 404


def test_the_last_admin_of_the_first_tenant_stays(admin: TestClient) -> None:
    key = admin.get("/v1/keys").json()["data"][0]["id"]

    answer = admin.delete(f"/v1/keys/{key}")
    assert answer.status_code == 409
    assert answer.json()["remedy"] == "make another admin key first"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "role": "boss"}, "/role"),
        ({"name": "x", "tenant": "No Spaces"}, "/tenant"),
        ({"name": ""}, "/name"),
        ({"name": "a\x1b[2Jb"}, "/name"),
        ({"nam": "x", "name": "x"}, "/nam"),
        ({}, "/name"),
    ],
)
def test_wrong_wishes_are_refused(admin: TestClient, body: dict[str, str], pointer: str) -> None:
    answer = admin.post("/v1/keys", json=body)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_every_write_is_in_the_audit_log(admin: TestClient, client_for: Clients) -> None:
    made = admin.post("/v1/keys", json={"name": "x", "role": "viewer"}).json()
    admin.delete(f"/v1/keys/{made['id']}")
    entries = admin.get("/v1/audit", params={"order": "asc"}).json()["data"]

    assert [entry["action"] for entry in entries] == ["key.create", "key.create", "key.delete"]
    assert {entry["subject_id"] for entry in entries[1:]} == {made["id"]}
    assert client_for("other", "admin").get("/v1/audit").json()["data"] == []


def test_a_key_that_calls_too_often_must_wait(service: FastAPI, admin: TestClient) -> None:
    service.state.rate = RateLimit(3, clock=lambda: 0.0)
    answers = [admin.get("/v1/datasets") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"


def test_the_bucket_fills_up_steadily() -> None:
    now = 0.0
    limit = RateLimit(10, clock=lambda: now)

    assert [limit.take("a") for _ in range(10)] == [0.0] * 10
    assert limit.take("a") == pytest.approx(0.1)
    assert limit.take("b") == 0
    now = 0.1
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    now = 1_000.0
    assert sum(limit.take("a") == 0 for _ in range(20)) == 10


def test_one_asks_anew_while_the_others_go_on(admin: TestClient, service: FastAPI) -> None:
    now = 0.0
    ring = KeyRing(service.state.database, clock=lambda: now)
    digest = KeyRing.digest(admin.headers["authorization"].split()[1])

    assert ring.remembered(digest) is None
    holder = ring.look_up(digest)
    assert holder is not None
    now += MEMORY_SECONDS * 0.6
    assert [ring.remembered(digest) for _ in range(3)] == [None, holder, holder]
    ring.look_up(digest)
    now += MEMORY_SECONDS * 0.4
    assert ring.remembered(digest) == holder, "looked up anew, it is remembered for longer"
    now += MEMORY_SECONDS
    assert ring.remembered(digest) is None
