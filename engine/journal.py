"""The journal of draws: what a private run has spent, written down before it is spent. Knows no instruction.

One line a draw, each a `PrivacyEvent` as JSON, synced to disk before the step that it pays for is taken. A run that
goes on from a snapshot repeats steps with fresh noise, and these count again: nothing is ever taken out. A line that
was cut short by a crash counts as one more draw like the one before it.
"""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from engine.accounting import PrivacyBudget, PrivacyEvent, epsilon, merged
from engine.disk import sync_folder
from engine.errors import BudgetExhausted, DiskFull

FILENAME = "privacy.jsonl"


class Journal:
    """The draws of one job, over all its attempts; in memory alone where `path` is None. `count` is their number."""

    def __init__(self, path: Path | None = None, budget: PrivacyBudget | None = None) -> None:
        self.budget = budget or PrivacyBudget()
        self._path = path
        self._lines = [] if path is None else _read(path)
        # What another machine drew is known from the record alone.
        self._lines += _missing(self._lines, self.budget.recorded)
        self.count = sum(event.count for event in self._lines)

    def drawn(self) -> list[PrivacyEvent]:
        """Everything that this job has drawn, in groups."""
        return merged(self._lines)

    def left(self, plan: PrivacyEvent) -> int:
        """How many draws of a plan are left: all attempts together make no more than were planned.

        Raises:
            BudgetExhausted: where the budget does not reach for these.
        """
        left = max(0, plan.count - self.count)
        budget = self.budget
        if budget.epsilon is None or budget.delta is None or not left or self._fits(plan, left):
            return left
        fits, too_many = 0, left
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if self._fits(plan, middle) else (fits, middle)
        raise BudgetExhausted(
            f"{left} steps would spend more than the budget of epsilon {budget.epsilon:g} at delta {budget.delta:g}",
            remedy=f"{fits} steps fit: lower the steps or the epsilon of the job, or raise the budget",
        )

    def append(self, event: PrivacyEvent, plan: PrivacyEvent) -> None:
        """Write one draw down for good, before it is made.

        Raises:
            BudgetExhausted: where the plan has none left; nothing is written then.
            DiskFull: where it cannot be written, so that the draw must not be made.
        """
        if self.count + event.count > plan.count:
            raise BudgetExhausted(
                f"all {plan.count} draws that were planned have been made",
                remedy="submit a new job, whose draws are accounted for anew",
            )
        if self._path is not None:
            try:
                _write(self._path, event)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                detail = f"the journal of draws could not be written: {error}"
                raise DiskFull(detail, remedy="free some space and resume the job") from error
        self._lines.append(event)
        self.count += event.count

    def _fits(self, plan: PrivacyEvent, count: int) -> bool:
        budget = self.budget
        assert budget.epsilon is not None
        assert budget.delta is not None
        return epsilon([*budget.spent, *self.drawn(), plan.times(count)], budget.delta) <= budget.epsilon


def _missing(lines: Sequence[PrivacyEvent], recorded: Sequence[PrivacyEvent]) -> list[PrivacyEvent]:
    """What the record has beyond the lines."""
    there = {event.times(1): event.count for event in merged(lines)}
    more = [(event, event.count - there.get(event.times(1), 0)) for event in merged(recorded)]
    return [event.times(count) for event, count in more if count > 0]


def _read(path: Path) -> list[PrivacyEvent]:
    if not path.exists():
        return []
    found: list[PrivacyEvent] = []
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        try:
            found.append(PrivacyEvent.from_json(json.loads(line)))
        except (ValueError, TypeError, ValidationError):
            found += found[-1:]
    return found


def _write(path: Path, event: PrivacyEvent) -> None:
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        # A line that a crash cut short ends here, so that it spoils no other.
        torn = stream.tell() > 0 and not _ends_with_newline(path)
        stream.write((b"\n" if torn else b"") + json.dumps(event.to_json()).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        sync_folder(path.parent)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
