"""What Prometheus is told: names that its own parser reads and the page documents, counts that add up, to whom what."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from app.database import Database
from app.datasets.models import Dataset
from app.health import fleet
from app.health.figures import Figures
from app.ids import new_id
from app.jobs import lifecycle, presence, repository
from app.jobs.lifecycle import Batch, Ending, Happening
from app.jobs.models import Job, JobEvent, JobTally, WorkerSeen
from app.jobs.states import CANCEL_IDLE, State
from app.privacy import composition
from app.privacy.models import SPENT, PrivacyAccount, PrivacyEntry
from engine import accounting
from tests.app.seeds import seed_dataset
from tests.service import claimed, let_lapse, owner_moves, put_job, statements

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
Labels = tuple[tuple[str, str], ...]
Clients = Callable[..., TestClient]


def scraped(client: TestClient) -> dict[tuple[str, Labels], float]:
    """Every sample by its name and its labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for each in families for one in each.samples}


def sample(client: TestClient, name: str, **labels: str) -> float | None:
    return scraped(client).get((name, tuple(sorted(labels.items()))))


def told(client: TestClient) -> dict[str, str]:
    """The name that a query uses and the type of every family."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {one.name + ("_total" if one.type == "counter" else ""): one.type for one in families}


def test_the_page_names_exactly_what_is_exported(admin: TestClient) -> None:
    rows = re.findall(r"^\| `(fiftytwo_\w+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    admin.get("/healthz")
    assert told(admin) == dict(rows)


def test_jobs_are_counted_by_how_they_end_and_for_good(service: FastAPI, admin: TestClient) -> None:
    database: Database = service.state.database
    for ending in (Ending(), Ending(error={"code": "diverged", "title": "t"}), Ending()):
        put_job(database)
        lifecycle.finish(database, claimed(database), ending)
    owner_moves(database, put_job(database), CANCEL_IDLE)
    put_job(database, tenant="other")
    kinds = {"kind": "train"}
    assert [
        sample(admin, "fiftytwo_jobs_total", state=state, **kinds) for state in ("succeeded", "failed", "cancelled")
    ] == [2, 1, 1]
    assert sample(admin, "fiftytwo_jobs_in_state", state="queued", **kinds) == 1
    assert sample(admin, "fiftytwo_queue_depth") == 1
    assert sample(admin, "fiftytwo_job_duration_seconds_count", state="succeeded", **kinds) == 2
    assert sample(admin, "fiftytwo_job_duration_seconds_bucket", state="succeeded", le="+Inf", **kinds) == 2
    assert sample(admin, "fiftytwo_job_duration_seconds_count", state="cancelled", **kinds) is None
    assert sample(admin, "fiftytwo_queue_wait_seconds_count", **kinds) == 3
    with database.session() as session:
        session.execute(delete(Job))
    assert sample(admin, "fiftytwo_jobs_total", state="succeeded", **kinds) == 2


def test_how_long_jobs_wait_and_run(service: FastAPI, admin: TestClient) -> None:
    database: Database = service.state.database
    first, second = put_job(database), put_job(database)
    with database.session() as session:
        for job_id, seconds in ((first, 100), (second, 30)):
            at = datetime.now(UTC) - timedelta(seconds=seconds)
            session.execute(update(JobEvent).where(JobEvent.job_id == job_id).values(at=at))
    assert 100 <= (sample(admin, "fiftytwo_queue_age_seconds") or 0) < 130
    run = claimed(database)
    assert run.job_id == first
    assert 30 <= (sample(admin, "fiftytwo_queue_age_seconds") or 0) < 60
    assert 100 <= (sample(admin, "fiftytwo_queue_wait_seconds_sum", kind="train") or 0) < 130
    waits = [sample(admin, "fiftytwo_queue_wait_seconds_bucket", kind="train", le=le) for le in ("60.0", "300.0")]
    assert waits == [0, 1]
    with database.session() as session:
        begun = datetime.now(UTC) - timedelta(seconds=600)
        session.execute(update(Job).where(Job.id == first).values(started_at=begun))
    lifecycle.finish(database, run, Ending())
    ran = {"kind": "train", "state": "succeeded"}
    assert 600 <= (sample(admin, "fiftytwo_job_duration_seconds_sum", **ran) or 0) < 630
    assert sample(admin, "fiftytwo_job_duration_seconds_bucket", le="300.0", **ran) == 0
    assert sample(admin, "fiftytwo_job_duration_seconds_bucket", le="900.0", **ran) == 1


def test_lost_runs_are_counted_and_restarts_are_none(service: FastAPI, admin: TestClient) -> None:
    database: Database = service.state.database
    put_job(database)
    for _ in range(2):
        let_lapse(database, claimed(database).job_id)
        assert len(lifecycle.rescue(database, 5)) == 1
    lifecycle.lose(database, claimed(database), 5, "the engine died")
    lifecycle.settle(database, claimed(database))
    assert sample(admin, "fiftytwo_lease_lapses_total", kind="train") == 3
    assert sample(admin, "fiftytwo_queue_wait_seconds_count", kind="train") == 4


def test_steps_and_checkpoints_of_running_jobs(service: FastAPI, admin: TestClient) -> None:
    database: Database = service.state.database
    old = datetime.now(UTC) - timedelta(seconds=500)
    for seconds, ages in ((0.2, (400, 50)), (0.4, (90,))):
        put_job(database)
        run = claimed(database)
        written = [Happening("checkpoint_written", old + timedelta(seconds=500 - age), {}) for age in ages]
        lifecycle.record(database, run, Batch(1, happenings=written, progress={"latest": {"step_seconds": seconds}}))
    assert sample(admin, "fiftytwo_step_seconds", kind="train") == pytest.approx(0.3)
    assert 90 <= (sample(admin, "fiftytwo_checkpoint_age_seconds") or 0) < 120


def test_workers_are_missed_until_they_take_leave(service: FastAPI, admin: TestClient) -> None:
    database: Database = service.state.database
    assert sample(admin, "fiftytwo_workers") == 0
    for name in ("one", "two", "one"):
        presence.present(database, name)
    assert sample(admin, "fiftytwo_workers") == 2
    presence.leave(database, "one")
    assert sample(admin, "fiftytwo_workers") == 1
    with database.session() as session:
        session.execute(update(WorkerSeen).values(at=datetime.now(UTC) - timedelta(seconds=120)))
    assert sample(admin, "fiftytwo_workers") == 0
    assert 120 <= (sample(admin, "fiftytwo_worker_heartbeat_age_seconds") or 0) < 150
    with database.session() as session:
        session.execute(update(WorkerSeen).values(at=datetime.now(UTC) - timedelta(hours=2)))
    presence.present(database, "three")
    assert sample(admin, "fiftytwo_workers") == 1
    assert (sample(admin, "fiftytwo_worker_heartbeat_age_seconds") or 0) < 60


def spend(session: Session, tenant: str, subject: str, noise: float) -> None:
    """Enter what a job has spent on a subject, at a delta for which the accountant has a short way."""
    now = datetime.now(UTC)
    entry = {"mechanism": "gaussian", "sampling": "poisson", "sampling_rate": 0.01, "noise_multiplier": noise}
    entry |= {"delta": 1e-20, "nominal": 1000, "planned": 100, "counted": 100, "state": SPENT, "created_at": now}
    entry |= {"id": new_id("led"), "job_id": new_id("job"), "unit": "record"}
    session.add(PrivacyAccount(id=new_id("pac"), tenant=tenant, subject=subject, created_at=now))
    session.add(PrivacyEntry(tenant=tenant, subject=subject, **entry))


def test_what_was_spent_of_privacy(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    dataset = seed_dataset(service, tmp_path)
    with service.state.database.session() as session:
        spend(session, "default", "gone", 1.0)
    spent = sample(admin, "fiftytwo_privacy_epsilon_spent", dataset="gone")
    assert spent is not None
    assert 0 < spent < math.inf
    assert sample(admin, "fiftytwo_privacy_epsilon_spent", dataset=dataset) is None


def test_no_connection_is_held_while_the_accountant_sums_up(
    service: FastAPI, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, pool, sum_up = list[int](), service.state.database.readers.pool, composition.total

    def noting(account: PrivacyAccount, entries: list[PrivacyEntry]) -> Any:
        held.append(pool.checkedout())
        return sum_up(account, entries)

    monkeypatch.setattr(fleet, "total", noting)
    with service.state.database.session() as session:
        spend(session, "default", "gone", 1.0)
    assert sample(admin, "fiftytwo_privacy_epsilon_spent", dataset="gone")
    assert held == [0]


def test_many_accounts_take_as_many_queries_as_one(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    dataset, other = seed_dataset(service, tmp_path), "other"
    database: Database = service.state.database
    with database.session() as session:
        found = session.get(Dataset, dataset)
        assert found is not None
        spend(session, "default", found.lineage, 1.0)
    with statements(database.readers) as asked:
        sample(admin, "fiftytwo_workers")
        alone = len(asked)
    with database.session() as session:
        for number in range(300):
            spend(session, "default", f"rows {number}", 1 + number / 1000)
        # Of the same rows, but somebody else's.
        spend(session, other, found.lineage, 0.5)
    before = scraped(admin)
    misses = [one.cache_info().misses for one in (accounting._pld, accounting._rdp)]
    with statements(database.readers) as asked:
        spent = {key: value for key, value in scraped(admin).items() if key[0] == "fiftytwo_privacy_epsilon_spent"}
        assert len(asked) == alone
    assert [one.cache_info().misses for one in (accounting._pld, accounting._rdp)] == misses
    names = {f"rows {number}" for number in range(300)} | {dataset, found.lineage}
    assert {dict(labels)["dataset"] for _, labels in spent} == names
    assert spent == {key: before[key] for key in spent}
    assert sample(admin, "fiftytwo_privacy_epsilon_spent", dataset=found.lineage) > sample(  # type: ignore[operator]
        admin, "fiftytwo_privacy_epsilon_spent", dataset=dataset
    )


def test_a_tenant_is_told_of_itself_alone(service: FastAPI, admin: TestClient, client_for: Clients) -> None:
    database: Database = service.state.database
    put_job(database)
    presence.present(database, "one")
    lifecycle.finish(database, claimed(database), Ending())
    put_job(database, tenant="other")
    for role in ("viewer", "admin"):
        other = client_for("other", role)
        assert sample(other, "fiftytwo_queue_depth") == 1
        names = {name for name, _ in scraped(other)}
        assert not {name for name in names if re.search("worker|http|jobs_total|wait", name)}
    assert sample(client_for(role="member"), "fiftytwo_workers") is None
    assert sample(admin, "fiftytwo_jobs_total", kind="train", state="succeeded") == 1
    assert TestClient(service).get("/metrics").status_code == 401


def test_requests_are_counted_by_route_and_never_by_id(admin: TestClient) -> None:
    for key in ("key_one", "key_two"):
        admin.get(f"/v1/keys/{key}")
    route = "/v1/keys/{key_id}"
    assert sample(admin, "fiftytwo_http_requests_total", method="GET", route=route, status="404") == 2
    assert sample(admin, "fiftytwo_http_request_seconds_count", route=route) == 2
    assert "key_one" not in admin.get("/metrics").text


def test_durations_of_requests_fall_into_buckets() -> None:
    figures = Figures()
    for seconds in (0.001, 0.2, 100.0):
        figures.count("GET", "/x", 200, seconds)
    name, route = "fiftytwo_http_request_seconds_bucket", {"route": "/x"}
    found = [figures.registry.get_sample_value(name, {**route, "le": le}) for le in ("0.005", "10.0", "+Inf")]
    assert found == [1, 2, 3]


def test_a_count_is_that_of_the_move(database: Database) -> None:
    """On both databases; a move that is rolled back counts nothing."""
    job_id = put_job(database)

    def end_and_fail() -> None:
        with database.session() as session:
            assert repository.move(session, job_id, CANCEL_IDLE)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        end_and_fail()
    for _ in range(2):
        assert lifecycle.finish(database, claimed(database), Ending()) is State.SUCCEEDED
        put_job(database)
    with database.reading() as session:
        rows = session.query(JobTally).where(JobTally.measure == "duration").all()
        assert [(row.state, row.number) for row in rows] == [("succeeded", 2)]
