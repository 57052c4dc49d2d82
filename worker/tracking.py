"""Tells an experiment tracker what was recorded of a run. A tracker that fails or is slow never hurts the job.

A tracker is one file of `worker/trackers/` with a class of three methods. What it is told waits in a queue for a thread
of its own: where the queue is full, points are left out; where the tracker fails, nothing more of that run goes out.
The database stays the truth. Knows no tracker and no process.
"""

import importlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from app.jobs.lifecycle import Point, Run
from app.jobs.states import TERMINAL, State
from app.settings import Settings

log = logging.getLogger(__name__)

MOST_WAITING = 1_000
PATIENCE_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker is told of it; a later attempt of the same job goes on with what the first began."""

    job_id: str
    tenant: str
    attempt: int
    parameters: Mapping[str, str]


class Tracker(Protocol):
    """Where a run's figures go; each method may take its time, and may raise anything."""

    def begin(self, run: Tracked) -> None:
        """A run begins, or an attempt goes on with it."""

    def points(self, points: Sequence[Point]) -> None:
        """Values of metrics, in the order of their steps."""

    def end(self, state: State | None) -> None:
        """The run has ended in this state; None: it will go on later, here or elsewhere."""


def tracker_of(settings: Settings) -> Callable[[], Tracker] | None:
    """Makes a tracker for each run; None: none is set, or it cannot be loaded, which is told once."""
    if settings.mlflow_uri is None:
        return None
    # MLflow tells its makers of its use unless it is told not to, before it is loaded.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        module: Any = importlib.import_module("worker.trackers.mlflow")
    except ImportError as error:
        log.error("FIFTYTWO_MLFLOW_URI is set, and nothing is told: %s; pip install 'fiftytwo[mlflow]'", error)
        return None
    uri, experiment = settings.mlflow_uri.get_secret_value(), settings.mlflow_experiment

    def make() -> Tracker:
        tracker: Tracker = module.MlflowTracker(uri, experiment)
        return tracker

    return make


class Telling:
    """Tells a tracker of one run, from a thread of its own.

    `fenced`: whether the run has been fenced off, and whoever holds the job now tells of it: not a word more goes out.
    """

    def __init__(self, make: Callable[[], Tracker] | None, run: Run, fenced: Callable[[], bool]) -> None:
        self._fenced = fenced
        self._waiting: queue.Queue[Sequence[Point] | _End] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._left_out = 0
        if make is not None:
            tracked = Tracked(run.job_id, run.tenant, run.attempt, parameters(run.spec))
            arguments = (self._tell, make, tracked)
            self._thread = threading.Thread(target=copy_context().run, args=arguments, name="tracker", daemon=True)
            self._thread.start()

    def take(self, points: Sequence[Point]) -> None:
        """Let these points go out; left out where too many wait."""
        if self._thread is None or not points:
            return
        try:
            self._waiting.put_nowait(points)
        except queue.Full:
            self._left_out += len(points)

    def end(self, state: State | None) -> None:
        """The run is over, and left the job in this state; what waits has some seconds to go out.

        None: it was fenced off, or may have been.
        """
        if self._thread is None:
            return
        if state is None:
            self._fenced = lambda: True
        try:
            self._waiting.put(_End(state if state in TERMINAL else None), timeout=PATIENCE_SECONDS)
        except queue.Full:
            log.warning("the tracker is too slow: the end of the run is not told")
            return
        self._thread.join(PATIENCE_SECONDS)
        if self._left_out:
            log.warning("the tracker was too slow: %d points were left out", self._left_out)

    def _tell(self, make: Callable[[], Tracker], run: Tracked) -> None:
        told: Sequence[Point] | _End = ()
        try:
            tracker = make()
            self._say(tracker.begin, run)
            while not isinstance(told := self._waiting.get(), _End):
                self._say(tracker.points, told)
            self._say(tracker.end, told.state)
        except Exception as error:
            # Whatever it is, it is the tracker's; the address may hold a password.
            log.warning("the tracker failed, and is told no more of this run: %s", type(error).__name__)
            while not isinstance(told, _End):
                told = self._waiting.get()

    def _say(self, method: Callable[[T], None], what: T) -> None:
        if not self._fenced():
            method(what)


@dataclass(frozen=True)
class _End:
    state: State | None


def parameters(spec: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """A spec as flat parameters, `training.epochs` and the like, and the instructions by name; nobody's texts."""
    found: dict[str, str] = {}
    for name, value in spec.items():
        if name == "instructions":
            found["instructions"] = ", ".join(str(one.get("name")) for one in value)
            for one in value:
                found |= parameters({key: inner for key, inner in one.items() if key != "name"}, f"{one.get('name')}.")
        elif isinstance(value, Mapping) and name not in _UNTOLD:
            found |= parameters(value, f"{above}{name}.")
        elif isinstance(value, str | int | float | bool) and name not in _UNTOLD:
            found[f"{above}{name}"] = str(value)
    return found


# Inline texts, and the whole training of a model that the job begins with.
_UNTOLD = frozenset({"inputs", "parent", "texts"})
