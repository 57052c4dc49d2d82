"""Live streams: 500 who follow one job. How soon they hear of a commit, and what they cost the worker."""

import asyncio
import re
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from app.database import Database
from app.jobs import lifecycle
from app.jobs.lifecycle import Batch, Happening, Point, Run
from app.jobs.states import TERMINAL
from benchmarks.benchmark import Benchmark, Setting
from benchmarks.load import get_bytes
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.servers import HOST, KEY, Server, api, service, upload
from benchmarks.texts import ROOT, prepared
from client.http import Client
from engine.baseline import PANEL

_READERS, _QUICK_READERS = 500, 50
_COMMITS, _QUICK_COMMITS = 12, 4
_STEPS, _QUICK_STEPS = 600, 40
_PAUSE_SECONDS = 0.5  # as a worker's recorder has it
_LEASE_SECONDS = 3600.0
_PATIENCE_SECONDS = 60.0
_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)
_SPEC = {"task": "text_classification", "instructions": [1, 20, 47], "auto_start": False}


@contextmanager
def latency(setting: Setting) -> Iterator[Pair]:
    """Commits as a worker makes them, half a second apart; every reader notes when it heard of each."""
    folder = setting.scratch("streams")
    readers = _QUICK_READERS if setting.quick else _READERS
    commits = _QUICK_COMMITS if setting.quick else _COMMITS
    with api(folder / "data") as ours, ours.client() as client:
        dataset = upload(client, prepared(folder), "text_classification")
        database = Database(ours.settings.database)

        def pair(_: int) -> dict[str, float]:
            job = str(client.post("/v1/jobs", {**_SPEC, "dataset": dataset, "auto_start": True})["id"])
            run = lifecycle.claim(database, "benchmark", _LEASE_SECONDS, 1)
            if run is None or run.job_id != job:
                raise RuntimeError("another job was queued")
            waits = asyncio.run(_followed(ours, job, readers, lambda: _commit(database, run, commits)))
            lifecycle.finish(database, run, lifecycle.Ending())
            return {"p99": statistics.quantiles(waits, n=100)[98], "p50": statistics.median(waits)}

        pair(0)
        try:
            yield pair
        finally:
            database.close()


@contextmanager
def slowing(setting: Setting) -> Iterator[Pair]:
    """The same job, which only computes and tells, with readers and without."""
    folder = setting.scratch("followed")
    readers = _QUICK_READERS if setting.quick else _READERS
    steps = _QUICK_STEPS if setting.quick else _STEPS
    engine = [sys.executable, str(ROOT / "benchmarks" / "busy_engine.py"), str(steps)]
    with service(folder / "data", engine=engine) as server, server.client() as client:
        dataset = upload(client, prepared(folder), "text_classification")

        def seconds(followers: int) -> float:
            job = str(client.post("/v1/jobs", {**_SPEC, "dataset": dataset})["id"])
            asyncio.run(_followed(server, job, followers, lambda: _start_and_wait(client, job)))
            done = client.get(f"/v1/jobs/{job}")
            if done["state"] != "succeeded":
                raise RuntimeError(f"the job {done['state']}: {done['error']}")
            return (_moment(done["finished_at"]) - _moment(done["started_at"])).total_seconds()

        def pair(number: int) -> dict[str, float]:
            followed, alone = in_turn(number, lambda: seconds(readers), lambda: seconds(0))
            return {"ratio": followed / alone, "followed": followed, "alone": alone}

        pair(0)
        yield pair


class _Reader(asyncio.Protocol):
    """One connection that reads a stream and notes when the first mention of each event came."""

    def __init__(self, request: bytes) -> None:
        self.heard: dict[int, float] = {}
        self.ready = asyncio.get_running_loop().create_future()
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        for number in _ID.findall(data.replace(b"\r\n", b"\n")):
            self.heard.setdefault(int(number), now)
        if self.heard and not self.ready.done():
            self.ready.set_result(None)


async def _followed(
    server: Server, job: str, readers: int, act: Callable[[], Awaitable[dict[int, float]]]
) -> list[float]:
    """Let so many follow a job while something is done; seconds from each commit to each reader.

    `act` gives when each event was committed, by its id: taken before the commit, so a little too early.
    """
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
    request = get_bytes(HOST, server.port, f"/v1/jobs/{job}/events", headers)
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(lambda: _Reader(request), HOST, server.port))[1] for _ in range(readers)]
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await asyncio.gather(*(reader.ready for reader in made))
    committed = await act()
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while any(committed.keys() - reader.heard.keys() for reader in made):
            await asyncio.sleep(0.01)
    for reader in made:
        reader.transport.close()
    return [reader.heard[number] - at for reader in made for number, at in committed.items()]


async def _commit(database: Database, run: Run, commits: int) -> dict[int, float]:
    """Commit batches of a worker's size; when each event was, by its id: two were there before."""
    committed = {}
    for number in range(1, commits + 1):
        now = datetime.now(UTC)
        batch = Batch(
            number,
            points=[Point(name, number, 0.5, now) for name in PANEL],
            happenings=[Happening("warned", now, {"code": "benchmark", "detail": "a line"})],
            progress={"step": number, "total_steps": commits, "latest": dict.fromkeys(PANEL, 0.5)},
        )
        committed[number + 2] = time.monotonic()
        await asyncio.to_thread(lifecycle.record, database, run, batch)
        await asyncio.sleep(_PAUSE_SECONDS)
    return committed


async def _start_and_wait(client: Client, job: str) -> dict[int, float]:
    await asyncio.to_thread(client.post, f"/v1/jobs/{job}/start")
    while (await asyncio.to_thread(client.get, f"/v1/jobs/{job}", wait_seconds=30))["state"] not in TERMINAL:
        pass
    return {}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


BENCHMARKS = (
    Benchmark(
        "streams",
        "live streams",
        f"{_READERS} readers of one job's events: from a commit, half a second after the one before, to each reader",
        (Line("p99", 0.25, 0.10, more_is_better=False, unit="s"), Line("p50", unit="s")),
        latency,
        90,
    ),
    Benchmark(
        "followed",
        "a job that is followed",
        f"a job that computes in one thread and tells of every step, from its claim to its end: with {_READERS} "
        "readers over without",
        (
            Line("ratio", 1.05, 1.02, more_is_better=False, unit="x"),
            Line("followed", unit="s"),
            Line("alone", unit="s"),
        ),
        slowing,
        120,
    ),
)
