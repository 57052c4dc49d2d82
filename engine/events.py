"""What a run tells while it goes on. Frozen facts, one JSON line each; who listens is not known here.

The stream of a run, in order: `PhaseStarted` (converting_base_model where a base is met for the first time, then data,
train, compress, export, measure, receipt), many `StepDone`, a `CheckpointWritten` now and then, `PrivacyDrawn` before
each private step, `Warned` where something deserves a look, `FileWritten` for each output, and last exactly one of
`Finished`, `Stopped` (run the same command again to go on) or `Failed`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, ClassVar, Protocol


def now() -> str:
    """The time as RFC 3339 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True)
class Event:
    """The base of all events; `event` names the kind on the wire."""

    event: ClassVar[str]
    at: str = field(default_factory=now)

    def line(self) -> str:
        """The event as one line of JSON."""
        return json.dumps({"event": self.event, **asdict(self)}, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class PhaseStarted(Event):
    """A phase of the run began."""

    event = "phase_started"
    phase: str


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """One optimizer step was taken; `values` maps names of metrics, the panel's and others, to finite numbers."""

    event = "step_done"
    step: int
    total_steps: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something deserves a look, yet does not stop the run."""

    event = "warned"
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class PrivacyDrawn(Event):
    """A private draw was written down and is about to be made: as in `engine.accounting`; `drawn`: of all attempts."""

    event = "privacy_drawn"
    step: int
    draw: Mapping[str, Any]
    drawn: int


@dataclass(frozen=True, kw_only=True)
class CheckpointWritten(Event):
    """A snapshot to resume from is whole on disk; `path` is relative to the run's folder."""

    event = "checkpoint_written"
    step: int
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FileWritten(Event):
    """An output is whole on disk; `path` is relative to the run's folder."""

    event = "file_written"
    kind: str
    filename: str
    path: str
    sha256: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run reached its end and its limits hold; `result` is what the job's kind answers inline."""

    event = "finished"
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """The run was asked to stop and left; the same command goes on from its newest snapshot."""

    event = "stopped"


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run cannot go on: code, title, detail, remedy, errors as in `engine.errors.EngineError.problem`."""

    event = "failed"
    error: Mapping[str, Any]


class Sink(Protocol):
    """Whoever listens to a run."""

    def emit(self, event: Event) -> None:
        """Take one event; must not raise."""


class JsonLines:
    """A sink that writes each event as one flushed line."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def emit(self, event: Event) -> None:
        """Write the event's line."""
        self.stream.write(event.line() + "\n")
        self.stream.flush()


class Listed:
    """A sink that keeps the events in a list: for tests and for use as a library."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Append the event."""
        self.events.append(event)
