"""The short way for looks: it answers what the long way answers, sees every write at once, and tells no stranger."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.answers import Encoded
from app.errors import NotFound
from app.jobs import endpoints, lifecycle, looks
from app.jobs.lifecycle import Batch, Ending, Point
from app.jobs.points import moment
from app.jobs.states import CANCEL_IDLE
from tests.service import claimed, owner_moves, put_job, tables

Clients = Callable[..., TestClient]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were read, each time."""
    found: list[str] = []
    read = endpoints._present

    def noting(session: Any, tenant: str, job_id: str) -> Any:
        found.append(job_id)
        return read(session, tenant, job_id)

    monkeypatch.setattr(endpoints, "_present", noting)
    return found


def test_what_did_not_change_is_read_once(service: FastAPI, admin: TestClient, reads: list[str]) -> None:
    database = service.state.database
    own = f"/v1/jobs/{put_job(database)}"
    long = admin.get(own, params={"wait_seconds": 0})
    reads.clear()
    answers = [admin.get(own) for _ in range(3)]
    assert len(reads) == 1
    for answer in answers:
        assert answer.content == long.content
        assert {name: answer.headers[name] for name in ("etag", "cache-control", "content-type")} == {
            name: long.headers[name] for name in ("etag", "cache-control", "content-type")
        }
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert admin.get(own, headers={"If-None-Match": long.headers["etag"]}).status_code == 304
    head = admin.head(own)
    assert (head.content, head.headers["etag"]) == (b"", long.headers["etag"])


def test_what_many_ask_for_at_once_is_read_once(tmp_path: Path) -> None:
    reads: list[str] = []

    def read(tenant: str) -> Encoded:
        reads.append(tenant)
        time.sleep(0.1)
        return Encoded(b"{}", '""')

    async def look_together(kept: looks.Looks, job_id: str) -> list[Encoded | None]:
        first = asyncio.ensure_future(kept.find("default", job_id, "view", read))
        others = [asyncio.ensure_future(kept.find("default", job_id, "view", read)) for _ in range(20)]
        strangers = [asyncio.ensure_future(kept.find("other", job_id, "view", read)) for _ in range(2)]
        await asyncio.sleep(0.03)
        first.cancel()
        return await asyncio.gather(*others, *strangers)

    with tables(f"sqlite:///{tmp_path}/jobs.db") as database:
        kept = looks.Looks(database)
        job_id = put_job(database)
        found = asyncio.run(look_together(kept, job_id))
        assert (found, reads) == ([Encoded(b"{}", '""')] * 20 + [None] * 2, ["default"])
        assert asyncio.run(kept.find("default", job_id, "view", read))
        assert (len(reads), kept._reading) == (1, {})


def test_what_could_not_be_read_is_read_again(tmp_path: Path) -> None:
    def read(tenant: str) -> Encoded:
        raise NotFound(tenant)

    with tables(f"sqlite:///{tmp_path}/jobs.db") as database:
        kept = looks.Looks(database)
        job_id = put_job(database)
        for _ in range(2):
            with pytest.raises(NotFound):
                asyncio.run(kept.find("default", job_id, "view", read))
        assert asyncio.run(kept.find("default", job_id, "view", lambda _: Encoded(b"{}", '""')))


def test_every_write_is_seen_at_once(service: FastAPI, admin: TestClient) -> None:
    database = service.state.database
    job_id = put_job(database)
    own = f"/v1/jobs/{job_id}"
    assert admin.get(own).json()["state"] == "queued"
    run = claimed(database)
    assert admin.get(own).json()["state"] == "running"
    lifecycle.record(database, run, Batch(1, progress={"step": 3}))
    assert admin.get(own).json()["progress"]["step"] == 3
    lifecycle.finish(database, run, Ending())
    assert admin.get(own).json()["state"] == "succeeded"
    assert admin.delete(own).status_code == 202
    assert admin.get(own).status_code == 404


def test_a_stranger_does_not_see_what_is_kept(service: FastAPI, admin: TestClient, client_for: Clients) -> None:
    own = f"/v1/jobs/{put_job(service.state.database)}"
    stranger, viewer = client_for("other", "admin"), client_for(role="viewer")
    for path in (own, f"{own}/metrics"):
        assert admin.get(path).status_code == 200
        assert stranger.get(path).status_code == 404
        assert viewer.get(path).status_code == 200
        assert TestClient(service).get(path).status_code == 401


def test_metrics_are_kept_by_how_many_are_asked_for(service: FastAPI, admin: TestClient) -> None:
    database = service.state.database
    job_id = put_job(database)
    run, at = claimed(database), datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)
    points = [Point("train_loss", step, 1 / step, at) for step in range(1, 31)]
    lifecycle.record(database, run, Batch(1, points=points))
    own = f"/v1/jobs/{job_id}/metrics"
    for _ in range(2):
        shown = [
            admin.get(own, params=query).json()["train_loss"] for query in ({}, {"max_points": 5}, {"max_points": 9})
        ]
        assert [len(one) for one in shown] == [30, 5, 9]
        assert shown[0][3] == {"step": 4, "value": 0.25, "at": "2026-01-02T03:04:05.678Z"}
    assert admin.get(own, params={"names": "train_loss", "max_points": 5}).json() == {"train_loss": shown[1]}
    for wrong in ("max_points=1", "max_points=100001", "max_points=x", "max_point=5", "max_points=5&max_points=6"):
        assert admin.get(f"{own}?{wrong}").status_code in (200, 422)
    assert admin.get(f"{own}?max_points=1").status_code == 422
    assert admin.get(f"{own}?max_point=5").json()["errors"][0]["code"] == "unknown_parameter"
    lifecycle.record(database, run, Batch(2, points=[Point("epsilon", 30, 2.0, at)]))
    assert set(admin.get(own).json()) == {"train_loss", "epsilon"}


def test_looks_are_counted_and_limited_like_all_requests(service: FastAPI, admin: TestClient) -> None:
    own = f"/v1/jobs/{put_job(service.state.database)}"
    admin.get(own)
    route = 'route="/v1/jobs/{job_id}",status="200"'
    assert f'fiftytwo_http_requests_total{{method="GET",{route}}} 1.0' in admin.get("/metrics").text
    service.state.rate.per_second = service.state.rate._most = 0.001
    service.state.rate._buckets.clear()
    assert [admin.get(own).status_code for _ in range(2)] == [429, 429]


def test_no_more_is_kept_than_there_is_room_for(service: FastAPI) -> None:
    kept = looks.Looks(service.state.database, most_bytes=1_000)

    def keep(name: str, size: int) -> None:
        kept._keep(name, looks._Kept(1, Encoded(b"x" * size, '""')))

    for number in range(20):
        keep(f"job_{number}", 100)
    assert list(kept._kept) == [f"job_{number}" for number in range(10, 20)]
    keep("job_19", 50)
    keep("large", 200)
    assert (kept._bytes, "large" in kept._kept) == (950, False)


def test_a_database_that_is_away_is_told_as_ever(service: FastAPI, admin: TestClient) -> None:
    own = f"/v1/jobs/{put_job(service.state.database)}"
    assert admin.get(own).status_code == 200
    service.state.looks._peek._own().close()
    assert admin.get(own).status_code == 200
    service.state.looks._peek._text = "SELECT nothing FROM nowhere"
    assert admin.get(own).status_code == 200
    owner_moves(service.state.database, own.rpartition("/")[2], CANCEL_IDLE)
    assert admin.get(own).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("2026-01-02 03:04:05.678900", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02 03:04:05", "2026-01-02T03:04:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC), "2026-01-02T03:04:05.678Z"),
    ],
)
def test_moments_of_points(stored: str | datetime, shown: str) -> None:
    assert moment(stored) == shown
