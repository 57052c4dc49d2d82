"""How soon an idle worker has claimed a job after its 202, over Celery's own time from publish to start."""

import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
from celery import Celery

from app.queue import celery_app
from benchmarks import quick_engine
from benchmarks.benchmark import Benchmark, Setting
from benchmarks.echo import ANSWERS, QUEUE, TASK, broker
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.servers import child, service, succeeded, upload
from benchmarks.texts import prepared
from client.http import Client

_TURNS = 5
_LOOK_SECONDS = 0.0002
_REST_SECONDS = 0.05
_PATIENCE_SECONDS = 30


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """`fiftytwo serve` with an engine that has finished at once, and a bare Celery worker on the same broker."""
    folder = setting.scratch("pickup")
    engine = [sys.executable, "-S", str(quick_engine.__file__)]
    celery = [sys.executable, "-m", "celery", "-A", "benchmarks.echo", "worker", "--without-gossip", "--without-mingle"]
    with service(folder / "data", engine=engine) as ours, ours.client() as client:
        environment = {"ECHO_BROKER": ours.broker_url}
        with child([*celery, "-Q", QUEUE, "--hostname", "echo@%h"], environment, folder / "echo.log"):
            dataset = upload(client, prepared(folder), "text_classification")
            rows = sqlite3.connect(f"file:{ours.settings.data_dir / 'fiftytwo.db'}?mode=ro", uri=True)
            publisher, answers = celery_app(ours.broker_url), broker(ours.broker_url)

            def pair(number: int) -> dict[str, float]:
                mine, theirs = in_turn(
                    number,
                    lambda: _middle(lambda: _claimed(client, dataset, rows)),
                    lambda: _middle(lambda: _echoed(publisher, answers)),
                )
                return {"ratio": mine / theirs, "ours": 1e3 * mine, "Celery's": 1e3 * theirs}

            pair(0)
            yield pair
            rows.close()
            publisher.close()
            answers.close()


def _middle(turn: Callable[[], float]) -> float:
    times = []
    for _ in range(_TURNS):
        times.append(turn())
        time.sleep(_REST_SECONDS)
    return statistics.median(times)


def _claimed(client: Client, dataset: str, rows: sqlite3.Connection) -> float:
    """Seconds from the 202 to the claim as another process sees it: committed.

    The bell rings at the commit and the 202 waits for the disk, so a claim may be there at the first look.
    """
    job = client.post("/v1/jobs", {"task": "text_classification", "dataset": dataset})
    answered = time.perf_counter()
    while rows.execute("SELECT started_at FROM jobs WHERE id = ?", (job["id"],)).fetchone()[0] is None:
        if time.perf_counter() - answered > _PATIENCE_SECONDS:
            raise RuntimeError("the job was not claimed")
        time.sleep(_LOOK_SECONDS)
    seconds = time.perf_counter() - answered
    succeeded(client, job["id"])
    return seconds


def _echoed(publisher: Celery, answers: redis.Redis) -> float:
    """Seconds from before the publish to the first line of the task."""
    published = time.time()
    publisher.send_task(TASK, queue=QUEUE, retry=False, ignore_result=True)
    answer = answers.blpop([ANSWERS], timeout=_PATIENCE_SECONDS)
    if answer is None:
        raise RuntimeError("the bare worker did not answer")
    return float(answer[1]) - published


BENCHMARKS = (
    Benchmark(
        "pickup",
        "pick-up",
        f"from the 202 to the committed claim on an idle worker, over Celery's own publish-to-start; the middle of "
        f"{_TURNS} a pair",
        (
            Line("ratio", 4, 2, more_is_better=False, unit="x"),
            Line("ours", unit="ms"),
            Line("Celery's", unit="ms"),
        ),
        opened,
        120,
    ),
)
