"""The wish to stop. Knows signals, not what is stopped.

While steps are taken the wish waits for the next boundary, where a snapshot is written, and while noise is drawn for
the result to land; before and after, where a repeat costs little and gives the same bytes, it is raised at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """Somebody asked this run to stop. No `Exception`: a tracer or an exporter that catches those must not eat it."""


class Interrupt:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._at_once = True

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as the wish to stop."""
        signal.signal(signal.SIGTERM, self._heard)
        signal.signal(signal.SIGINT, self._heard)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self._at_once:
            raise StopRequested

    @contextmanager
    def at_boundaries(self) -> Iterator[None]:
        """Within, the wish waits to be asked for."""
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True
