"""One subprocess per run: starts the engine in a group of its own, hears its events, stops it or kills its group.

Knows nothing of jobs, leases or the database; what the run should do is asked of a callable.
"""

import fcntl
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

WARDEN = Path(__file__).with_name("warden.py")
TAG = "FIFTYTWO_RUN"
LISTEN_SECONDS = 0.1
CLEAR_SECONDS = 5.0
LOG_NAME = "log.txt"
LOCK_NAME = ".lock"
STOPPED = 75


class Wish(Enum):
    """What the run should do now."""

    GO_ON = auto()
    STOP = auto()  # take a snapshot and leave
    DIE = auto()  # at once


class FolderInUse(Exception):
    """Another process, which cannot be ended from here, still works in the run's folder."""


@dataclass
class Exit:
    """How the engine's process ended."""

    code: int
    last: Mapping[str, Any] | None = None
    outputs: list[Mapping[str, Any]] = field(default_factory=list)
    stopped: bool = False


class Engine:
    """The process of one run."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], memory_bytes: int) -> None:
        self.events: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        sweep(folder)
        lock = _hold(folder)
        launch = [sys.executable, "-I", "-S", str(WARDEN), str(os.getpid()), str(memory_bytes), *command]
        try:
            with (folder / LOG_NAME).open("ab") as errors:
                self.process = subprocess.Popen(
                    launch,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**environment, TAG: str(folder)},
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
        finally:
            # The processes of the run hold the lock from here on, so that it ends with the last of them.
            lock.close()
        self._listener = threading.Thread(target=self._listen, name="engine-events", daemon=True)
        self._listener.start()

    def ask_to_stop(self) -> None:
        """SIGTERM to the engine itself, by way of its warden; the engine sees to its children."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL to the whole group, also what the engine left behind; the exit code."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("the group of the run is gone already")
        return self.process.wait()

    def rest(self) -> Iterator[Mapping[str, Any]]:
        """What was told and not yet heard, once the group is dead."""
        self._listener.join(CLEAR_SECONDS)
        while not self.events.empty():
            if (event := self.events.get()) is not None:
                yield event

    def _listen(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                try:
                    event = json.loads(line)
                except ValueError:
                    event = None
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    self.events.put(event)
                else:
                    log.warning("the engine wrote a line that is no event: %.200s", line.rstrip())
        self.events.put(None)


def supervise(
    engine: Engine, take: Callable[[Mapping[str, Any]], None], wish: Callable[[], Wish], grace_seconds: float
) -> Exit:
    """Hear the engine until its process has ended, hand each event to `take`, and do to it as `wish` says.

    Nothing of the engine's group is alive when this returns or raises.
    """
    ending = Exit(code=0)
    deadline: float | None = None
    try:
        listening = True
        while listening:
            try:
                event = engine.events.get(timeout=LISTEN_SECONDS)
                listening = event is not None
                if event is not None:
                    _note(ending, event)
                    take(event)
            except queue.Empty:
                # A grandchild may hold the pipe open after the engine's end.
                listening = engine.process.poll() is None
            wanted = wish()
            if wanted is Wish.DIE or (deadline is not None and time.monotonic() > deadline):
                ending.stopped = True
                break
            if wanted is Wish.STOP and deadline is None:
                ending.stopped = True
                deadline = time.monotonic() + grace_seconds
                engine.ask_to_stop()
        if not ending.stopped or deadline is not None:
            _let_end(engine, deadline)
    finally:
        ending.code = engine.kill()
    # What it told before it was killed counts too: a draw that was announced may have been made.
    for event in engine.rest():
        _note(ending, event)
        take(event)
    return ending


def _let_end(engine: Engine, deadline: float | None) -> None:
    """After its last word an engine may take a moment to leave; one that hangs is killed."""
    seconds = 10.0 if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        engine.process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        log.warning("the engine did not leave by itself")


def _note(ending: Exit, event: Mapping[str, Any]) -> None:
    if event["event"] == "file_written":
        ending.outputs.append(event)
    elif event["event"] in ("finished", "failed", "stopped"):
        ending.last = event


def sweep(folder: Path) -> None:
    """Kill what an earlier attempt left running for this folder, its grandchildren too (Linux; known by a variable)."""
    mark = f"{TAG}={folder}".encode()
    deadline = time.monotonic() + CLEAR_SECONDS
    while (left := _tagged(mark)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.02)


def _tagged(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def _hold(folder: Path) -> IO[str]:
    """Take the folder's lock, which the engine inherits: two engines never write one folder."""
    lock = (folder / LOCK_NAME).open("w")
    deadline = time.monotonic() + CLEAR_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if time.monotonic() > deadline:
                lock.close()
                raise FolderInUse(str(folder)) from error
            time.sleep(0.02)
