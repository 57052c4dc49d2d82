"""What it costs to look: at a job, at the metrics of a long run, at the far end of a long list; beside a bare GET."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from app.artifacts.models import Artifact
from app.database import Database
from app.ids import new_id
from app.jobs import repository
from app.jobs.models import Job, MetricPoint
from app.jobs.states import State
from benchmarks.benchmark import Benchmark, Setting
from benchmarks.load import Load, fire, get_bytes
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.servers import HOST, KEY, Server, api, bare
from engine.baseline import PANEL
from engine.plan import Plan
from engine.spec import Spec

OK = 200
_POINTS, _QUICK_POINTS, _KEPT = 100_000, 12_000, 1_000
_JOBS, _QUICK_JOBS, _PAGE, _AT_ONCE = 100_000, 2_000, 50, 5_000


@contextmanager
def reading(setting: Setting) -> Iterator[Pair]:
    """Rounds of 16 clients that look at one job that has ended, with its plan and its four files."""
    with _servers(setting, "reading", _one_job) as (ours, plain, job_id):
        path, seconds = f"/v1/jobs/{job_id}", 0.5 if setting.quick else 2.0

        def pair(number: int) -> dict[str, float]:
            mine, theirs = in_turn(
                number, lambda: _round(ours, path, seconds, 16), lambda: _round(plain, "/look", seconds, 16)
            )
            return {"ratio": mine.rate / theirs.rate, "looks": mine.rate, "bare": theirs.rate}

        pair(0)
        yield pair


@contextmanager
def metrics(setting: Setting) -> Iterator[Pair]:
    """One client that draws the twelve series of a long run; a moment later again, and once after the run went on."""
    with _servers(setting, "metrics", _long_run) as (ours, plain, job_id):
        path, seconds = f"/v1/jobs/{job_id}/metrics?max_points={_KEPT}", 0.5 if setting.quick else 2.0
        database = Database(ours.settings.database)

        def first_look() -> float:
            """In seconds, after the job was written again: nothing that was kept of it counts any more."""
            with database.session() as session:
                session.execute(Job.__table__.update().values(revision=Job.revision + 1))  # type: ignore[attr-defined]
            return _round(ours, path, 0, 1).p50

        def pair(number: int) -> dict[str, float]:
            first = first_look()
            mine, theirs = in_turn(
                number, lambda: _round(ours, path, seconds, 1), lambda: _round(plain, "/look", seconds, 1)
            )
            return {"p50 ratio": mine.p50 / theirs.p50, "first ratio": first / theirs.p50, "bare p50": theirs.p50 * 1e3}

        pair(0)
        try:
            yield pair
        finally:
            database.close()


@contextmanager
def listing(setting: Setting) -> Iterator[Pair]:
    """One client that reads the first page of a long list, or the last one."""
    with _servers(setting, "listing", _many_jobs) as (ours, _, last):
        seconds = 0.5 if setting.quick else 2.0
        first_page, far_page = f"/v1/jobs?limit={_PAGE}", f"/v1/jobs?limit={_PAGE}&after={last}"

        def pair(number: int) -> dict[str, float]:
            near, far = in_turn(
                number, lambda: _round(ours, first_page, seconds, 1), lambda: _round(ours, far_page, seconds, 1)
            )
            return {"ratio": far.p50 / near.p50, "first p50": near.p50 * 1e3}

        pair(0)
        yield pair


@contextmanager
def _servers(
    setting: Setting, name: str, fill: Callable[[Database, bool], str]
) -> Iterator[tuple[Server, Server, str]]:
    """Our API and the bare one, and what `fill` gives of what it put into the database."""
    folder = setting.scratch(name)
    with api(folder / "data") as ours, bare(folder) as plain:
        database = Database(ours.settings.database)
        try:
            filled = fill(database, setting.quick)
        finally:
            database.close()
        yield ours, plain, filled


def _round(server: Server, path: str, seconds: float, clients: int) -> Load:
    request = get_bytes(HOST, server.port, path, {"Authorization": f"Bearer {KEY}"})
    load = fire(HOST, server.port, request, OK, seconds, clients)
    if load.errors:
        raise RuntimeError(f"{load.errors} of {len(load.latencies)} looks failed")
    return load


def _job() -> Job:
    """A training that has ended, as it stands in the table."""
    spec = Spec.model_validate(
        {"task": "text_classification", "dataset": new_id("ds"), "instructions": [1, 11, 20, 45, 47]}
    )
    now = datetime.now(UTC)
    return Job(
        id=new_id("job"),
        tenant="default",
        kind=spec.kind,
        task=spec.task,
        name="a job",
        metadata_={"team": "mail"},
        spec=spec.resolved(pretrained=True),
        plan=Plan.of(spec, {"pretrained"}).describe(),
        inputs={},
        state=State.SUCCEEDED,
        created_at=now,
    )


def _one_job(database: Database, quick: bool) -> str:
    del quick
    job = _job()
    files = [
        Artifact(
            id=new_id("art"),
            tenant="default",
            job_id=job.id,
            attempt=1,
            kind=kind,
            filename=f"{kind}.zip",
            media_type="application/zip",
            sha256="0" * 64,
            size_bytes=1,
            storage_key=f"sha256/00/{kind}",
            created_at=datetime.now(UTC),
        )
        for kind in ("model", "checkpoint", "receipt", "report")
    ]
    with database.session() as session:
        repository.add(session, job)
        session.add_all(files)
    return job.id


def _long_run(database: Database, quick: bool) -> str:
    job, count = _job(), (_QUICK_POINTS if quick else _POINTS) // len(PANEL)
    began = datetime.now(UTC)
    with database.session() as session:
        repository.add(session, job)
        for number, name in enumerate(PANEL):
            rows = [
                {"job_id": job.id, "name": name, "step": step, "value": math.sin(step / 97 + number), "at": at}
                for step in range(1, count + 1)
                for at in (began + timedelta(seconds=step / 10),)
            ]
            session.execute(insert(MetricPoint), rows)
    return job.id


def _many_jobs(database: Database, quick: bool) -> str:
    """The job that the last page begins after, newest first."""
    pattern, count = _job(), _QUICK_JOBS if quick else _JOBS
    ids: list[str] = []
    while len(ids) < count:
        some: list[Job] = []
        for _ in range(min(_AT_ONCE, count - len(ids))):
            facts: dict[str, Any] = {name: value for name, value in vars(pattern).items() if name[0] != "_"}
            some.append(Job(**{**facts, "id": new_id("job")}))
        with database.session() as session:
            repository.add(session, *some)
        ids += [job.id for job in some]
    return ids[_PAGE]


BENCHMARKS = (
    Benchmark(
        "reading",
        "reading a job",
        "GET /v1/jobs/{id} of a job with five instructions and four files, 16 clients, over a bare Starlette GET",
        (Line("ratio", 0.08, 0.15, unit="x"), Line("looks", unit="/s"), Line("bare", unit="/s")),
        reading,
        60,
    ),
    Benchmark(
        "metrics",
        "metrics",
        f"GET /v1/jobs/{{id}}/metrics of {_POINTS:,} points in 12 series, down-sampled to {_KEPT:,} a series, over a "
        "bare GET's p50; `first`: the job has been written since anybody looked",
        (
            Line("p50 ratio", 20, 10, more_is_better=False, unit="x"),
            Line("first ratio", unit="x"),
            Line("bare p50", unit="ms"),
        ),
        metrics,
        60,
    ),
    Benchmark(
        "listing",
        "listing",
        f"GET /v1/jobs of {_JOBS:,} jobs: p50 of the page of {_PAGE} at the far end over that of the first",
        (Line("ratio", 3, 1.5, more_is_better=False, unit="x"), Line("first p50", unit="ms")),
        listing,
        45,
    ),
)
