"""Rounds over HTTP: what an update must be, what nobody is told, and what a close makes."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.numpy import load, save
from sqlalchemy import select

from app.erasure import erase_due
from app.jobs.models import JobFile
from app.rounds.models import RoundUpdate
from app.settings import Settings
from engine.accounting import PrivacyEvent, epsilon
from tests.app.federation.conftest import POPULATION, ROUND
from tests.service import worker_for

BYTES = {"Content-Type": "application/octet-stream"}
WEIGHTS = {"w": np.linspace(-0.1, 0.1, 50, dtype=np.float32), "b": np.ones((2, 3), np.float32)}


def update_of(number: int, tensors: dict[str, Any] | None = None) -> bytes:
    """A client's file."""
    found = tensors if tensors is not None else {name: one * (number + 1) / 100 for name, one in WEIGHTS.items()}
    return bytes(save(found))


def put(client: TestClient, one: str, name: str, content: bytes) -> Any:
    return client.put(f"/v1/rounds/{one}/updates/{name}", content=content, headers=BYTES)


def fill(client: TestClient, one: str, count: int = 12) -> None:
    for i in range(count):
        answer = put(client, one, f"client-{i}", update_of(i))
        assert answer.status_code == 201, answer.text


def test_the_divisor_is_fixed_for_the_life_of_a_population(admin: TestClient, opened: Any, population: str) -> None:
    opened()
    answer = admin.post("/v1/rounds", json={"population": population, **ROUND, "expected_clients": 21})
    assert (answer.status_code, answer.json()["code"]) == (409, "fixed_for_life")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"no safetensors file at all", 422, "not_safetensors"),
        (update_of(0, {"w": WEIGHTS["w"]}), 422, "wrong_tensor"),
        (update_of(0, WEIGHTS | {"more": WEIGHTS["w"]}), 422, "wrong_tensor"),
        (update_of(0, WEIGHTS | {"w": WEIGHTS["w"][:-1]}), 422, "wrong_tensor"),
        (update_of(0, {name: one.astype(np.float64) for name, one in WEIGHTS.items()}), 422, "wrong_tensor"),
        (update_of(0, WEIGHTS | {"w": WEIGHTS["w"] * np.float32(np.nan)}), 422, "not_finite"),
        (update_of(0, WEIGHTS | {"w": np.full(50, np.inf, np.float32)}), 422, "not_finite"),
        (update_of(0)[:-4], 422, "not_safetensors"),
    ],
)
def test_a_wrong_update_is_refused_singly(
    admin: TestClient, opened: Any, content: bytes, status: int, code: str
) -> None:
    one = opened()
    assert put(admin, one, "first", update_of(1)).status_code == 201
    answer = put(admin, one, "second", content)
    assert answer.status_code == status, answer.text
    assert code in [fault["code"] for fault in answer.json()["errors"]]
    # The same client may send a sound one after it.
    assert put(admin, one, "second", update_of(2)).status_code == 201


def test_an_update_is_too_large_or_no_bytes(admin: TestClient, opened: Any) -> None:
    named = {"w": {"shape": [50], "dtype": "F32"}, "b": {"shape": [2, 3], "dtype": "F32"}}
    one = opened(tensors=named)
    assert put(admin, one, "c", b"x" * (9 << 20)).status_code == 413
    assert admin.put(f"/v1/rounds/{one}/updates/c", json={}).status_code == 415
    assert put(admin, one, "c", update_of(0)).status_code == 201
    assert put(admin, "rnd_none", "c", update_of(0)).status_code == 404
    assert put(admin, one, "c..", b"").status_code == 422


def test_one_update_a_client(admin: TestClient, opened: Any) -> None:
    one = opened()
    first, again = put(admin, one, "c", update_of(1)), put(admin, one, "c", update_of(1))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["sha256"] == hashlib.sha256(update_of(1)).hexdigest()
    second = put(admin, one, "c", update_of(2))
    assert (second.status_code, second.json()["code"]) == (409, "second_update")


def test_of_two_different_updates_at_once_one_is_taken(admin: TestClient, opened: Any) -> None:
    one, barrier = opened(), threading.Barrier(4)

    def send(number: int) -> int:
        barrier.wait()
        return int(put(admin, one, "c", update_of(number)).status_code)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, range(4))) == [201, 409, 409, 409]


def test_a_cohort_is_drawn_in_secret_and_nobody_else_is_heard(admin: TestClient, opened: Any) -> None:
    one = opened(sampling={"poisson": 0.5})
    drawn = {f"c{i}": admin.get(f"/v1/rounds/{one}/cohort/c{i}").json()["drawn"] for i in range(40)}
    assert 5 < sum(drawn.values()) < 35
    assert drawn != {
        f"c{i}": admin.get(f"/v1/rounds/{opened(sampling={'poisson': 0.5})}/cohort/c{i}").json()["drawn"]
        for i in range(40)
    }
    inside, outside = (next(name for name, is_in in drawn.items() if is_in is wanted) for wanted in (True, False))
    assert put(admin, one, inside, update_of(1)).status_code == 201
    answer = put(admin, one, outside, update_of(1))
    assert (answer.status_code, answer.json()["code"]) == (409, "not_drawn")


def test_too_few_clients_cannot_be_closed(admin: TestClient, opened: Any) -> None:
    one = opened()
    fill(admin, one, 9)
    answer = admin.post(f"/v1/rounds/{one}/close")
    assert (answer.status_code, answer.json()["code"]) == (409, "too_few_clients")
    assert "9" not in answer.json()["detail"]
    fill(admin, one, 0)
    assert put(admin, one, "tenth", update_of(10)).status_code == 201
    assert admin.post(f"/v1/rounds/{one}/close").status_code == 202
    late = put(admin, one, "late", update_of(11))
    assert (late.status_code, late.json()["code"]) == (409, "round_closed")
    assert admin.post(f"/v1/rounds/{one}/close").status_code == 409
    assert admin.get(f"/v1/rounds/{one}/cohort/tenth").status_code == 409


def test_a_round_beyond_the_budget_is_refused(admin: TestClient) -> None:
    whole = epsilon([PrivacyEvent(q=1.0, sigma=1.0, sampling="none")], 1e-5)
    budget = {"epsilon": whole, "delta": 1e-5}
    population = admin.post("/v1/populations", json=POPULATION | {"budget": budget}).json()["id"]
    both = [admin.post("/v1/rounds", json={"population": population, **ROUND}).json()["id"] for _ in range(2)]
    for one in both:
        fill(admin, one)
    closed = [admin.post(f"/v1/rounds/{one}/close") for one in both]
    assert [answer.status_code for answer in closed] == [202, 409]
    assert closed[1].json()["code"] == "budget_exhausted"
    assert closed[1].json()["detail"].startswith("the round would spend")
    assert admin.get(f"/v1/populations/{population}").json()["left"] == 0
    answer = admin.post("/v1/rounds", json={"population": population, **ROUND})
    assert (answer.status_code, answer.json()["errors"][0]["left"]) == (409, 0.0)
    assert answer.json()["detail"].startswith("the round would spend")


def everything_told(admin: TestClient, one: str, job: str) -> str:
    pages = [f"/v1/rounds/{one}", f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", f"/v1/jobs/{job}/logs"]
    pages += [f"/v1/jobs/{job}/receipt", f"/v1/jobs/{job}/metrics", "/v1/privacy/ledger", "/v1/populations"]
    return "\n".join(admin.get(page).text for page in pages)


def test_a_whole_round(admin: TestClient, service: FastAPI, opened: Any, settings: Settings, population: str) -> None:
    one = opened()
    fill(admin, one, 13)
    with service.state.database.reading() as session:
        uploads = set(session.scalars(select(RoundUpdate.storage_key)))
    job = admin.post(f"/v1/rounds/{one}/close").json()
    assert job["kind"] == "aggregate"
    document = admin.get("/openapi.json").json()
    shape = {"$ref": "#/components/schemas/JobShown", "components": document["components"]}
    jsonschema_rs.validate(shape, job)
    jsonschema_rs.validate(shape, admin.get(f"/v1/jobs/{job['id']}").json())
    worker_for(settings, service.state.database).run_next()
    told = admin.get(f"/v1/jobs/{job['id']}").json()
    assert told["state"] == "succeeded", told
    by_kind = {artifact["kind"]: artifact for artifact in told["artifacts"]}
    tensors = load(admin.get(by_kind["aggregate"]["url"]).content)
    assert {name: value.shape for name, value in tensors.items()} == {"w": (50,), "b": (2, 3)}
    receipt = admin.get(f"/v1/jobs/{job['id']}/receipt").json()
    assert receipt["signature"]["algorithm"] == "ed25519"
    privacy = receipt["privacy"]
    assert (
        privacy["epsilon"]
        == privacy["dataset_total_epsilon"]
        == epsilon([PrivacyEvent(q=1.0, sigma=1.0, sampling="none")], 1e-5)
    )
    (entry,) = admin.get(f"/v1/privacy/ledger?population={population}").json()["data"]
    assert (entry["state"], entry["counted"], entry["unit"]) == ("spent", 1, "client")
    # Nothing that was told has the number of clients, a name of one, or a file of one.
    text = everything_told(admin, one, job["id"])
    assert not any(f"client-{i}" in text for i in range(13))
    assert not any(number in text for number in ('"13"', ":13,", ":13}"))
    erase_due(service.state.database, service.state.storage)
    assert not any(service.state.storage.has(key) for key in uploads)
    with service.state.database.reading() as session:
        assert session.scalars(select(JobFile)).all() == []
        assert session.scalars(select(RoundUpdate)).all() == []
    left = [path.name for path in (settings.data_dir / "runs" / job["id"]).iterdir()]
    assert left == ["log.txt"]
    # The next round begins with this one's result.
    base = by_kind["aggregate"]["id"]
    second = admin.post("/v1/rounds", json={"population": population, **ROUND, "base": base, "format": "weights"})
    assert second.status_code == 201
    assert json.dumps(second.json()["tensors"], sort_keys=True) == json.dumps(
        {"b": {"shape": [2, 3], "dtype": "F32"}, "w": {"shape": [50], "dtype": "F32"}}, sort_keys=True
    )


def test_uploads_are_erased_when_the_job_is_cancelled(admin: TestClient, service: FastAPI, opened: Any) -> None:
    one = opened()
    fill(admin, one)
    with service.state.database.reading() as session:
        uploads = set(session.scalars(select(RoundUpdate.storage_key)))
    job = admin.post(f"/v1/rounds/{one}/close").json()["id"]
    erase_due(service.state.database, service.state.storage)
    assert all(service.state.storage.has(key) for key in uploads)
    assert admin.post(f"/v1/jobs/{job}/cancel").status_code == 202
    erase_due(service.state.database, service.state.storage)
    assert not any(service.state.storage.has(key) for key in uploads)
    assert [entry["state"] for entry in admin.get("/v1/privacy/ledger").json()["data"]] == ["void"]
