"""What a private run has drawn by its journal, where its engine had no time to tell. Knows no process and no database.

The journal is written before a draw is made, and told of after: an engine that is killed in between has told of one
draw less. It lies in the run's folder, a line a release in the fields of the engine's event.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.jobs.lifecycle import Drawn

JOURNAL_NAME = "privacy.jsonl"


class Draws:
    """The draws of one attempt, counted from where the journal stood when it began.

    `recorded`: what the ledger has of the attempts before. Another machine's draws stand there and not in the journal.
    """

    def __init__(self, folder: Path, recorded: Sequence[Mapping[str, Any]]) -> None:
        self._path = folder / JOURNAL_NAME
        self._before = read(self._path)
        self._recorded = _summed([Drawn.of(one) for one in recorded])

    def so_far(self) -> list[Drawn]:
        """How often each release was made by this attempt and those before it, as far as anybody wrote it down."""
        found = []
        for release, lines in read(self._path).items():
            before = self._before.get(release, 0)
            count = max(before, self._recorded.get(release, 0)) + lines - before
            found.append(replace(release, count=count))
        return found


def read(path: Path) -> dict[Drawn, int]:
    """How often the journal has each release. A line that was cut short counts as one more like the one before it."""
    found: list[Drawn] = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        if not line.strip():
            continue
        try:
            found.append(Drawn.of(json.loads(line)))
        except (ValueError, TypeError, KeyError):
            found += found[-1:]
    return _summed(found)


def _summed(drawn: Sequence[Drawn]) -> dict[Drawn, int]:
    counts: dict[Drawn, int] = {}
    for one in drawn:
        release = replace(one, count=1)
        counts[release] = counts.get(release, 0) + one.count
    return counts
