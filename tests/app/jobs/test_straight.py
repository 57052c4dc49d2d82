"""The short way of a plain submit gives what FastAPI's way gives; a charset in the content type takes the latter."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.jobs.straight import Straight

LONG = {"content-type": "application/json; charset=utf-8"}
OF_ONE_JOB = ("id", "created_at", "links")


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each submit, whether the short way answered it."""
    taken: list[bool] = []
    answer = Straight.answer

    async def noted(route: Straight, *given: Any) -> Any:
        response = await answer(route, *given)
        taken.append(response is not None)
        return response

    monkeypatch.setattr(Straight, "answer", noted)
    return taken


def without_id(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name not in OF_ONE_JOB}


def test_both_ways_make_the_same_job(admin: TestClient, dataset: Callable[..., str], ways: list[bool]) -> None:
    body = {"task": "text_classification", "dataset": dataset(), "instructions": [1, 47], "name": "a", "metadata": {}}
    short, long = admin.post("/v1/jobs", json=body), admin.post("/v1/jobs", json=body, headers=LONG)
    assert ways == [True, False]
    assert (short.status_code, long.status_code) == (202, 202)
    assert without_id(short.json()) == without_id(long.json())
    assert set(short.headers) == set(long.headers)
    assert short.headers["location"] == f"/v1/jobs/{short.json()['id']}"
    counted = 'fiftytwo_http_requests_total{method="POST",route="/v1/jobs",status="202"} 2.0'
    assert counted in admin.get("/metrics").text


def test_a_key_used_one_way_replays_on_the_other(
    admin: TestClient, dataset: Callable[..., str], ways: list[bool]
) -> None:
    body, key = {"task": "text_classification", "dataset": dataset()}, {"Idempotency-Key": "once"}
    first = admin.post("/v1/jobs", json=body, headers=key)
    again = admin.post("/v1/jobs", json=body, headers=key | LONG)
    assert ways == [True, False]
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "asked",
    [
        {"params": {"dry_run": "true"}},
        {"params": {"no": "1"}},
        {"headers": {"Idempotency-Key": "no spaces"}},
        {"headers": {"content-type": "text/plain"}},
    ],
)
def test_what_is_not_plain_goes_the_long_way(
    admin: TestClient, dataset: Callable[..., str], ways: list[bool], asked: dict[str, Any]
) -> None:
    answer = admin.post("/v1/jobs", json={"task": "text_classification", "dataset": dataset()}, **asked)
    assert ways == [False]
    assert answer.status_code in (200, 415, 422)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"task": 1}', b'{"task": NaN}', b"[" * 100_000])
def test_what_is_no_job_goes_the_long_way(admin: TestClient, ways: list[bool], content: bytes) -> None:
    plain = {"content-type": "application/json"}
    short, long = (admin.post("/v1/jobs", content=content, headers=headers) for headers in (plain, LONG))
    assert ways == [False, False]
    assert short.status_code == long.status_code
    assert short.status_code in (400, 422)
    assert short.json()["errors"] == long.json()["errors"]


def test_the_short_way_asks_for_key_and_role(
    service: FastAPI, client_for: Callable[..., TestClient], dataset: Callable[..., str], ways: list[bool]
) -> None:
    body = {"task": "text_classification", "dataset": dataset()}
    with TestClient(service) as stranger:
        assert stranger.post("/v1/jobs", json=body).status_code == 401
    assert client_for(role="viewer").post("/v1/jobs", json=body).status_code == 403
    assert client_for(tenant="other").post("/v1/jobs", json=body).status_code == 422
    assert ways == []
