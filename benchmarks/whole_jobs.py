"""Whole jobs by the wall clock: what the service adds to the engine, and two workers against one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.demo import write_zip
from benchmarks.benchmark import Benchmark, Setting
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.servers import service, succeeded, upload
from benchmarks.texts import ROOT
from client.http import Client

TASK = "image_classification"
_EPOCHS = 6


def spec_of(setting: Setting, dataset: str) -> dict[str, Any]:
    """The job of both benchmarks: scikit-learn's digits, a small residual net from scratch, many short steps."""
    epochs = 1 if setting.quick else _EPOCHS
    return {"task": TASK, "dataset": dataset, "training": {"epochs": epochs, "batch_size": 32}}


@contextmanager
def over_http(setting: Setting) -> Iterator[Pair]:
    """The same spec on the same data file with the same threads, by HTTP and by `python -m engine`."""
    folder = setting.scratch("over-http")
    archive = folder / "digits.zip"
    write_zip(archive)
    prepared = folder / "digits.parquet"
    ingest = [sys.executable, "-m", "engine.ingest", str(archive), "--task", TASK, "--out", str(prepared)]
    subprocess.run([*ingest, "--report", str(folder / "report.json")], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    with service(folder / "data") as server, server.client() as client:
        dataset = upload(client, archive, TASK)

        def pair(number: int) -> dict[str, float]:
            out = folder / f"alone-{number}"
            mine, theirs = in_turn(
                number,
                lambda: _seconds_over_http(client, [spec_of(setting, dataset)]),
                lambda: _seconds_alone(spec_of(setting, str(prepared)), out, server.settings.threads),
            )
            return {"ratio": mine / theirs, "over HTTP": mine, "engine alone": theirs}

        yield pair


@contextmanager
def two_at_once(setting: Setting) -> Iterator[Pair]:
    """Two jobs sent at once to two workers that share the cores, and to one worker that has them all."""
    folder = setting.scratch("two-at-once")
    archive = folder / "digits.zip"
    write_zip(archive)
    with (
        service(folder / "two", workers=2) as two,
        service(folder / "one") as one,
        two.client() as first,
        one.client() as second,
    ):
        sides = [(client, upload(client, archive, TASK)) for client in (first, second)]

        def pair(number: int) -> dict[str, float]:
            together, in_a_row = in_turn(
                number,
                lambda: _seconds_over_http(sides[0][0], [spec_of(setting, sides[0][1])] * 2),
                lambda: _seconds_over_http(sides[1][0], [spec_of(setting, sides[1][1])] * 2),
            )
            return {"ratio": together / in_a_row, "two workers": together, "in a row": in_a_row}

        yield pair


def _seconds_over_http(client: Client, specs: list[dict[str, Any]]) -> float:
    """From the first POST until the client has heard that every job succeeded."""
    started = time.perf_counter()
    jobs = [client.post("/v1/jobs", spec)["id"] for spec in specs]
    for job in jobs:
        succeeded(client, job)
    return time.perf_counter() - started


def _seconds_alone(spec: dict[str, Any], out: Path, threads: int) -> float:
    """The whole life of the engine's process."""
    job = out.with_suffix(".json")
    job.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "engine", str(job), "--out", str(out), "--threads", str(threads)]
    as_a_worker = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env={**os.environ, **as_a_worker}, check=True, capture_output=True)
    return time.perf_counter() - started


BENCHMARKS = (
    Benchmark(
        "overhead",
        "the service's own cost",
        "a job over HTTP, from the POST to the answer that it succeeded, over `python -m engine` on the same spec: "
        "scikit-learn's digits, wall",
        (
            Line("ratio", 1.08, 1.05, more_is_better=False, unit="x"),
            Line("over HTTP", unit="s"),
            Line("engine alone", unit="s"),
        ),
        over_http,
        240,
    ),
    Benchmark(
        "threads",
        "threads",
        "two jobs on two workers that share the cores, over the same one after the other on one worker, wall",
        (
            Line("ratio", 1.2, 1.05, more_is_better=False, unit="x"),
            Line("two workers", unit="s"),
            Line("in a row", unit="s"),
        ),
        two_at_once,
        300,
    ),
)
