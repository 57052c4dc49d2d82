"""Turns the engine's events into batches of rows. Keeps a batch while the database is away; knows no process.

A batch whose commit may have failed is written again as it was, under its number, so that the database can tell a
repeat from news.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from app.jobs.lifecycle import Batch, Drawn, Happening, Point, Snapshot
from app.jobs.states import State
from worker.lease import DATABASE_AWAY

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
FLUSH_POINTS = 2_000
# The end of a run is told by the move that ends it.
KEPT = frozenset({"phase_started", "warned", "checkpoint_written", "file_written"})


class Recorder:
    """Collects events and hands them to `write` every half second; `write` answers with the job's state."""

    def __init__(self, write: Callable[[Batch], State | None], latest: Mapping[str, float]) -> None:
        self._write = write
        self._latest = dict(latest)
        self._points: list[Point] = []
        self._happenings: list[Happening] = []
        self._snapshots: list[Snapshot] = []
        self._progress: dict[str, Any] = {}
        self._drawn: list[Drawn] = []
        self._number = 0
        self._unsure: Batch | None = None
        self._due = time.monotonic() + FLUSH_SECONDS
        self._first: tuple[int, float] | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Note one event."""
        kind = event["event"]
        at = datetime.fromisoformat(event["at"])
        if kind == "step_done":
            self._step(event, at)
        elif kind == "privacy_drawn":
            # Each tells of all before it.
            self._drawn[:] = [Drawn.of({**event["draw"], "count": event["drawn"]})]
        elif kind in KEPT:
            data = {name: value for name, value in event.items() if name not in ("event", "at")}
            self._happenings.append(Happening(kind, at, data))
            if kind == "phase_started":
                # How long it takes nobody knows until it counts steps.
                self._progress |= {"phase": event["phase"], "eta_seconds": None}

    def note(self, snapshot: Snapshot) -> None:
        """Put a snapshot on record with the next batch."""
        self._snapshots.append(snapshot)

    def note_draws(self, drawn: Sequence[Drawn]) -> None:
        """Put draws that nobody told of on record with the next batch; the ledger keeps the higher count."""
        self._drawn += drawn

    def flush_if_due(self) -> None:
        """Flush where half a second went by or much has come together."""
        if time.monotonic() >= self._due or len(self._points) >= FLUSH_POINTS:
            self.flush()

    def flush(self) -> None:
        """Write what came together; kept for the next time where the database is away."""
        try:
            self.flush_or_raise()
        except DATABASE_AWAY as error:
            log.warning("what the run told is kept until the database is back: %s", error)

    def flush_or_raise(self) -> None:
        """Write what came together; raises what the database raises, and keeps it then."""
        self._due = time.monotonic() + FLUSH_SECONDS
        while batch := self._unsure or self._gathered():
            self._unsure = batch
            self._write(batch)
            self._unsure = None

    def _gathered(self) -> Batch | None:
        """What came together since the last batch, as the next one; None: nothing did."""
        parts = (self._points, self._happenings, self._snapshots, self._progress, self._drawn)
        if not any(parts):
            return None
        self._number += 1
        batch = Batch(
            self._number,
            tuple(self._points),
            tuple(self._happenings),
            tuple(self._snapshots),
            dict(self._progress),
            tuple(self._drawn),
        )
        for part in parts:
            part.clear()
        return batch

    def _step(self, event: Mapping[str, Any], at: datetime) -> None:
        step, total = int(event["step"]), int(event["total_steps"])
        values = {str(name): float(value) for name, value in event["values"].items() if math.isfinite(value)}
        self._points += [Point(name, step, value, at) for name, value in values.items()]
        self._latest |= values
        now = time.monotonic()
        if self._first is None or step <= self._first[0]:  # the first, or the first of another count of steps
            self._first = (step, now)
        first_step, began = self._first
        pace = (now - began) / (step - first_step) if step > first_step else None
        self._progress |= {
            "step": step,
            "total_steps": total,
            "latest": dict(self._latest),
            # What comes after the last step takes its time too.
            "eta_seconds": round(pace * (total - step), 1) if pace is not None and step < total else None,
        }
