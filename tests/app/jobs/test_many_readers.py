"""Many readers of one job: each hears everything, in order and once, and the database is asked once for all of them."""

import asyncio
import json
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.database import Database
from app.jobs import lifecycle, streaming, watching
from app.jobs.lifecycle import Batch, Ending, Happening, Run
from app.jobs.streaming import News, news_of, stream
from app.jobs.watching import Watch
from tests.service import claimed, put_job, tables

READERS = 200
BATCHES = 5


def told(number: int) -> Batch:
    event = Happening("warned", datetime.now(UTC), {"number": number, "text": "two\nlines: ä"})
    return Batch(number, happenings=[event], progress={"step": number})


def ids(heard: bytes) -> list[int]:
    return [int(line.removeprefix(b"id: ")) for line in heard.splitlines() if line.startswith(b"id: ")]


async def read(database: Database, watch: Watch, job_id: str, last: int = 0) -> bytes:
    return b"".join([part async for part in stream(database, watch, "default", job_id, last)])


async def write(database: Database, watch: Watch, run: Run) -> None:
    """Write as soon as everybody has heard what was written before."""
    for number in range(1, BATCHES + 1):
        while len(watch._jobs[run.job_id].followers if run.job_id in watch._jobs else ()) < READERS:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(lifecycle.record, database, run, told(number))
        await asyncio.sleep(3 * watching.LOOK_SECONDS)
    await asyncio.to_thread(lifecycle.finish, database, run, Ending())


async def read_together(database: Database, job_id: str, run: Run) -> list[bytes]:
    watch = Watch(database)
    async with asyncio.timeout(60):
        heard, _ = await asyncio.gather(
            asyncio.gather(*(read(database, watch, job_id) for _ in range(READERS))), write(database, watch, run)
        )
    assert watch._jobs == {}
    return list(heard)


def test_all_hear_everything_and_it_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[int] = Counter()

    def counted(database: Database, tenant: str, job_id: str, last: int) -> News:
        asked[last] += 1
        return news_of(database, tenant, job_id, last)

    monkeypatch.setattr(streaming, "news_of", counted)
    with tables(f"sqlite:///{tmp_path}/jobs.db") as database:
        job_id = put_job(database)
        heard = asyncio.run(read_together(database, job_id, claimed(database)))
    assert len({tuple(ids(one)) for one in heard}) == 1
    assert ids(heard[0]) == list(range(1, BATCHES + 4))  # and queued, running, succeeded
    assert heard[0].startswith(b"retry: 2000\n")
    messages = [line.removeprefix(b"data: ") for line in heard[0].splitlines() if line.startswith(b"data: ")]
    assert all(json.loads(message) for message in messages)
    # Twice at the first place: before the first look nobody knows how old it is. Far fewer than READERS anywhere.
    assert sum(asked.values()) <= 3 * (BATCHES + 3)


@pytest.mark.parametrize("most_peeked", [0, 50])
def test_a_reader_that_leaves_takes_nobodys_news_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_peeked: int
) -> None:
    monkeypatch.setattr(watching, "MOST_PEEKED", most_peeked)

    async def leave_and_stay(database: Database, job_id: str) -> bytes:
        watch = Watch(database)
        leaving = asyncio.create_task(read(database, watch, job_id))
        staying = asyncio.create_task(read(database, watch, job_id))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        async with asyncio.timeout(30):
            return await staying

    with tables(f"sqlite:///{tmp_path}/jobs.db") as database:
        job_id = put_job(database)
        run = claimed(database)
        ending = threading.Timer(0.3, lambda: lifecycle.finish(database, run, Ending()))
        ending.start()
        assert ids(asyncio.run(leave_and_stay(database, job_id))) == [1, 2, 3]
        ending.join()


@pytest.mark.parametrize(("seconds", "progress"), [(1_000.0, False), (0.0, True)])
def test_events_are_told_at_once_and_progress_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, progress: bool
) -> None:
    monkeypatch.setattr(watching, "PROGRESS_SECONDS", seconds)

    async def heard(database: Database, run: Run) -> list[bool]:
        with Watch(database).following(run.job_id) as follower:
            found = [await follower.change(5)]
            await asyncio.to_thread(lifecycle.record, database, run, Batch(1, progress={"step": 1}))
            found.append(await follower.change(4 * watching.LOOK_SECONDS))
            await asyncio.to_thread(lifecycle.record, database, run, told(2))
            return [*found, await follower.change(5), await follower.change(2 * watching.LOOK_SECONDS)]

    with tables(f"sqlite:///{tmp_path}/jobs.db") as database:
        put_job(database)
        assert asyncio.run(heard(database, claimed(database))) == [True, progress, True, False]


def test_a_reader_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BATCH", 2)
    with tables(f"sqlite:///{tmp_path}/jobs.db") as database:
        job_id = put_job(database)
        run = claimed(database)
        for number in range(1, BATCHES + 1):
            lifecycle.record(database, run, told(number))
        lifecycle.finish(database, run, Ending())
        last = BATCHES + 3
        for start in (0, 4, last - 1, last, last + 100):
            heard = asyncio.run(read(database, Watch(database), job_id, start))
            assert ids(heard) == list(range(start + 1, last + 1))
        assert asyncio.run(read(database, Watch(database), "job_none")) == streaming.HELLO


def test_a_failure_is_not_shared_with_who_comes_later(tmp_path: Path) -> None:
    async def fail_and_succeed(database: Database, job_id: str) -> str:
        async def failing() -> str:
            raise OSError

        async def succeeding() -> str:
            return "read"

        with Watch(database).following(job_id) as follower:
            assert await follower.change(5)
            for _ in range(2):
                with pytest.raises(OSError):  # noqa: PT011
                    await follower.shared("key", failing)
            assert await follower.shared("key", succeeding) == "read"
            return await follower.shared("key", failing)

    with tables(f"sqlite:///{tmp_path}/jobs.db") as database:
        assert asyncio.run(fail_and_succeed(database, put_job(database))) == "read"
