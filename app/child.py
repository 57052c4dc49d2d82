"""One process that a supervisor keeps: started in a group of its own, killed with its parent, started again if it dies.

Knows nothing of what the process does.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from engine.orphans import die_with

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_SETTLED_SECONDS = 60.0
_LOG_BYTES = 10_000_000


class Child:
    """A process under supervision.

    Args:
        name: how the log calls it.
        command: its arguments.
        environment: the whole of its environment.
        log_file: where its output goes.
        died: is told of each process that has ended by itself, by its number.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        died: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.log_file = log_file
        self.died = died
        self.process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = _FIRST_PAUSE
        self._due: float | None = None

    def start(self) -> None:
        """Start it, in a process group of its own so that Ctrl-C on the terminal reaches the supervisor alone."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_BYTES:
            os.replace(self.log_file, self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=partial(die_with, os.getpid()),
            )
        self._started, self._due = time.monotonic(), None

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def keep(self) -> bool:
        """Called now and then: start it again if it has died, after a pause that doubles with every early death.

        Returns:
            whether it runs now.
        """
        if self.process is None or self.alive():
            return self.process is not None
        now = time.monotonic()
        if self._due is None:
            if now - self._started > _SETTLED_SECONDS:
                self._pause = _FIRST_PAUSE
            self._due = now + self._pause
            log.warning(
                "%s (process %d) ended with %d; it starts again in %.1f s; its log: %s",
                *(self.name, self.process.pid, self.process.returncode, self._pause, self.log_file),
            )
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self.died(self.process.pid)
        elif now >= self._due:
            self.start()
        return self.alive()

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process; it tells its own children."""
        if self.process is not None and self.alive():
            self.process.terminate()

    def stopped(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Wait for its end; after `seconds`, or once `hurry` says so, its whole group is killed. True if it obeyed."""
        if self.process is None:
            return True
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end and not hurry():
            time.sleep(0.02)
        obeyed = not self.alive()
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if not obeyed:
            log.warning("%s did not stop within %.0f s and was killed", self.name, seconds)
        return obeyed
