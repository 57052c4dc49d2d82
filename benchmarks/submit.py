"""How many jobs a second the service takes, each durable on SQLite before its 202, against a bare Starlette POST."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import delete

from app.database import Database
from app.jobs.models import Job
from benchmarks.benchmark import Benchmark, Setting
from benchmarks.load import Load, fire, request_bytes
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.servers import HOST, KEY, Server, api, bare, upload
from benchmarks.texts import prepared

ACCEPTED = 202


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """Rounds of 16 clients; the table of jobs is emptied after each, so every round meets the same state."""
    folder = setting.scratch("submit")
    seconds = 1.0 if setting.quick else 3.0
    with api(folder / "data") as ours, bare(folder) as plain:
        with ours.client() as client:
            dataset = upload(client, prepared(folder), "text_classification")
        spec = {"kind": "train", "task": "text_classification", "dataset": dataset, "instructions": [1, 11, 20, 47]}
        body = json.dumps(spec).encode()
        database = Database(ours.settings.database)

        def submit() -> Load:
            load = _round(ours, "/v1/jobs", body, seconds)
            with database.session() as session:
                session.execute(delete(Job))
            return load

        def pair(number: int) -> dict[str, float]:
            mine, theirs = in_turn(number, submit, lambda: _round(plain, "/submit", body, seconds))
            if mine.errors or theirs.errors:
                raise RuntimeError(f"{mine.errors} submits and {theirs.errors} bare requests failed")
            return {
                "ratio": mine.rate / theirs.rate,
                "p99 ratio": mine.p99 / theirs.p99,
                "submits": mine.rate,
                "bare": theirs.rate,
            }

        pair(0)
        try:
            yield pair
        finally:
            database.close()


def _round(server: Server, path: str, body: bytes, seconds: float) -> Load:
    headers = {"Authorization": f"Bearer {KEY}"}
    return fire(HOST, server.port, request_bytes(HOST, server.port, path, body, headers), ACCEPTED, seconds)


BENCHMARKS = (
    Benchmark(
        "submit",
        "submit",
        "POST /v1/jobs, durable on SQLite, 16 clients, over a bare Starlette POST of the same body; no error allowed",
        (
            Line("ratio", 0.12, 0.18, unit="x"),
            Line("p99 ratio", 25, 20, more_is_better=False, unit="x"),
            Line("submits", unit="/s"),
            Line("bare", unit="/s"),
        ),
        opened,
        180,
    ),
)
