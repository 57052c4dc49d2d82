"""Batches: what is in one, and that a batch whose commit may have failed is written again as it was."""

import time
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.database import Database
from app.jobs import lifecycle, repository
from app.jobs.lifecycle import Batch, Run, Snapshot
from app.jobs.states import State
from app.settings import Settings
from tests.service import put_job, worker_for
from worker.recorder import Recorder

AT = "2026-01-02T03:04:05.000Z"
SNAPSHOT = Snapshot(3, "checkpoints/3", "a" * 64, "sha256/aa/" + "a" * 64)


class Writer:
    """Takes every batch; while it is `away`, the answer is lost."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.away = False

    def __call__(self, batch: Batch) -> State:
        self.batches.append(batch)
        if self.away:
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"))
        return State.RUNNING


@pytest.fixture
def writer() -> Writer:
    """A database that loses its answers when told so."""
    return Writer()


def warned(code: str) -> dict[str, Any]:
    return {"event": "warned", "at": AT, "code": code, "detail": ""}


def codes(batch: Batch) -> list[str]:
    return [one.data["code"] for one in batch.happenings]


def test_a_batch_of_unknown_fate_is_written_again_as_it_was(writer: Writer) -> None:
    recorder = Recorder(writer, {})
    writer.away = True
    recorder.take(warned("first"))
    recorder.note(SNAPSHOT)
    recorder.flush()
    recorder.take(warned("second"))
    recorder.flush()
    writer.away = False
    recorder.flush()
    recorder.flush()

    first, again, third, news = writer.batches
    assert first == again == third
    assert (first.number, codes(first), first.snapshots) == (1, ["first"], (SNAPSHOT,))
    assert (news.number, codes(news), news.snapshots) == (2, ["second"], ())


def test_nothing_new_is_no_batch(writer: Writer) -> None:
    recorder = Recorder(writer, {})
    recorder.flush_or_raise()
    assert writer.batches == []
    recorder.take({"event": "step_done", "at": AT, "step": 1, "total_steps": 2, "values": {"train_loss": 1.0}})
    recorder.flush_or_raise()
    recorder.flush_or_raise()
    assert [(batch.number, batch.progress["step"], len(batch.points)) for batch in writer.batches] == [(1, 1, 1)]


def test_the_time_left_is_that_of_the_steps_that_are_counted_now(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, clock = Recorder(writer, {}), iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    for step, total in ((10, 100), (20, 100), (2, 4), (3, 4)):  # a training in float, then the run's own
        recorder.take({"event": "step_done", "at": AT, "step": step, "total_steps": total, "values": {}})
    recorder.flush_or_raise()
    assert writer.batches[-1].progress["eta_seconds"] == 10.0


@pytest.mark.parametrize("last", [4, 3], ids=["every step taken", "ended before its last step"])
def test_no_time_left_is_told_of_what_comes_after_the_steps(writer: Writer, last: int) -> None:
    recorder = Recorder(writer, {})
    for step in range(1, last + 1):
        recorder.take({"event": "step_done", "at": AT, "step": step, "total_steps": 4, "values": {}})
    if last < 4:
        recorder.flush_or_raise()
        assert writer.batches[-1].progress["eta_seconds"] is not None
        recorder.take({"event": "phase_started", "at": AT, "phase": "compress"})
    recorder.flush_or_raise()
    assert writer.batches[-1].progress["eta_seconds"] is None


def test_a_commit_of_unknown_outcome_doubles_no_event(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, calls = lifecycle.record, 0

    def losing(database: Database, run: Run, batch: Batch) -> State | None:
        nonlocal calls
        calls += 1
        state = record(database, run, batch)
        if calls % 3:
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"))
        return state

    monkeypatch.setattr(lifecycle, "record", losing)
    job_id = put_job(database, steps=9, sleep=0.1)
    worker_for(settings, database).run_next()
    with database.reading() as session:
        told = [(event.type, event.data) for event in repository.events_after(session, job_id, 0, 100)]
    assert calls >= 3
    assert [data["phase"] for kind, data in told if kind == "phase_started"] == ["train", "export"]
    assert [data["step"] for kind, data in told if kind == "checkpoint_written"] == [3, 6, 9]
    assert [data["kind"] for kind, data in told if kind == "file_written"] == ["model", "checkpoint", "receipt"]
