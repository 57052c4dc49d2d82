"""Batches: what is in one, and that a batch whose commit may have failed is written again as it was."""

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.jobs.lifecycle import Batch, Snapshot
from app.jobs.states import State
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
