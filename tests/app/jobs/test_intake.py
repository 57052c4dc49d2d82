"""Submits that arrive together: one transaction, and to each its own answer."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from starlette.responses import Response
from starlette.testclient import TestClient

from app.jobs import intake
from app.jobs.intake import Intake, Submit
from app.jobs.models import Job, JobEvent

TOGETHER = 12


@pytest.fixture
def batches(service: FastAPI, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were stored by each transaction; the first takes one and waits until all the others are there."""
    sizes: list[int] = []
    store = Intake._store
    monkeypatch.setattr(intake, "MOST_TOGETHER", 1)

    def waiting(of: Intake, together: list[Submit]) -> list[Response | Exception]:
        if not sizes:
            while len(of._waiting) < TOGETHER - len(together):
                time.sleep(0.01)
            monkeypatch.setattr(intake, "MOST_TOGETHER", TOGETHER)
        sizes.append(len(together))
        return store(of, together)

    monkeypatch.setattr(Intake, "_store", waiting)
    return sizes


def post_together(client: TestClient, bodies: list[dict[str, Any]], headers: list[dict[str, str]]) -> list[Any]:
    answers: list[Any] = [None] * len(bodies)

    def post(at: int) -> None:
        answers[at] = client.post("/v1/jobs", json=bodies[at], headers=headers[at])

    threads = [threading.Thread(target=post, args=(at,)) for at in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_those_that_wait_share_a_transaction_and_a_refusal_is_the_refused_ones_own(
    admin: TestClient, service: FastAPI, dataset: Callable[..., str], batches: list[int]
) -> None:
    good = {"task": "text_classification", "dataset": dataset()}
    bodies = [good | ({"dataset": "ds_nobody"} if at % 3 == 0 else {"name": f"job {at}"}) for at in range(TOGETHER)]
    answers = post_together(admin, bodies, [{}] * TOGETHER)
    assert batches == [1, TOGETHER - 1]
    assert [answer.status_code for answer in answers] == [422 if at % 3 == 0 else 202 for at in range(TOGETHER)]
    assert [answer.json()["name"] for answer in answers if answer.status_code == 202] == [
        body["name"] for body in bodies if "name" in body
    ]
    with service.state.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == TOGETHER * 2 // 3
        assert session.scalar(select(func.count()).select_from(JobEvent)) == TOGETHER * 2 // 3


def test_the_cap_counts_those_of_the_same_transaction(
    admin: TestClient, service: FastAPI, dataset: Callable[..., str], batches: list[int]
) -> None:
    service.state.intake._max_open_jobs = 5
    answers = post_together(admin, [{"task": "text_classification", "dataset": dataset()}] * TOGETHER, [{}] * TOGETHER)
    assert batches == [1, TOGETHER - 1]
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [429] * (TOGETHER - 5)


def test_a_key_that_comes_twice_in_one_transaction_makes_one_job(
    admin: TestClient, dataset: Callable[..., str], batches: list[int]
) -> None:
    keys = [{"Idempotency-Key": f"key-{at // 2}"} for at in range(TOGETHER)]
    answers = post_together(admin, [{"task": "text_classification", "dataset": dataset()}] * TOGETHER, keys)
    assert [answer.status_code for answer in answers] == [202] * TOGETHER
    assert batches == [1, TOGETHER - 1]
    assert len({answer.json()["id"] for answer in answers}) == TOGETHER // 2
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == TOGETHER // 2


def test_an_error_of_the_database_reaches_everybody_and_stores_nothing(
    admin: TestClient,
    service: FastAPI,
    dataset: Callable[..., str],
    batches: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    body = {"task": "text_classification", "dataset": dataset()}
    monkeypatch.setattr("app.jobs.intake.audit_all", full)
    answers = post_together(admin, [body] * TOGETHER, [{"Idempotency-Key": f"key-{at}"} for at in range(TOGETHER)])
    assert {answer.status_code >= 500 for answer in answers} == {True}
    with service.state.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
    monkeypatch.undo()
    assert admin.post("/v1/jobs", json=body, headers={"Idempotency-Key": "key-0"}).status_code == 202


@pytest.mark.parametrize("bound", ["GATHER_SECONDS", "MOST_TOGETHER"])
def test_a_stream_that_never_pauses_is_stored_all_the_same(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Somebody comes in every turn of the loop, so nobody is ever the last; each bound alone must end the wait."""
    for other in {"GATHER_SECONDS", "MOST_TOGETHER"} - {bound}:
        monkeypatch.setattr(intake, other, 10**9)
    monkeypatch.setattr(Intake, "_store", lambda _, together: [Response()] * len(together))
    # None of these is looked at: nothing is stored.
    taken = Intake(None, lambda: None, max_open_jobs=1)  # type: ignore[arg-type]
    submit = Submit(None, None, None, None, None)  # type: ignore[arg-type]

    async def stream() -> int:
        tasks: list[asyncio.Task[Response]] = []
        while not (tasks and tasks[0].done()) and len(tasks) < 100_000:
            tasks.append(asyncio.create_task(taken.take(submit)))
            await asyncio.sleep(0)
        came = len(tasks)
        await asyncio.gather(*tasks)
        return came

    assert asyncio.run(stream()) < 100_000
