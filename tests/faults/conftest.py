"""A broker, a database and real worker processes, all of which may be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app.broker import Broker, embedded
from app.database import Database
from app.queue import Bell
from app.settings import Settings
from tests.service import job_of, settings_for, tables

WAIT_SECONDS = 60.0


class Installation:
    """One data folder with everything that serves it."""

    def __init__(self, settings: Settings, database: Database, broker: Broker) -> None:
        self.settings = settings
        self.database = database
        self.broker = broker
        self.broker_process: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.bell = Bell(broker.url)

    def start_broker(self) -> None:
        """Start it and wait until it answers."""
        self.broker_process = subprocess.Popen(self.broker.command, stdout=subprocess.DEVNULL)
        assert self.broker.answers(10)

    def kill_broker(self) -> None:
        """As `kill -9`."""
        assert self.broker_process is not None
        self.broker_process.kill()
        self.broker_process.wait()

    def start_worker(self, **changes: str) -> subprocess.Popen[bytes]:
        """A worker process of its own, as `fiftytwo worker` starts it."""
        values = self.settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        names = {f"FIFTYTWO_{name.upper()}": str(value) for name, value in values.items()}
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "worker.main",
            "worker",
            "--without-gossip",
            "--without-mingle",
        ]
        name = f"w{len(self.workers)}@test"
        log = (self.settings.data_dir / "worker.log").open("ab")
        with log:
            worker = subprocess.Popen(
                [*command, "--hostname", name],
                env={**os.environ, **names, **changes},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def engines(self) -> list[psutil.Process]:
        """Every process that works in a run's folder, grandchildren too."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get("FIFTYTWO_RUN", "")
                if marked.startswith(str(self.settings.data_dir)) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something to become true; the workers' log says why it did not."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}; {(self.settings.data_dir / 'worker.log').read_text()[-4000:]}")
            time.sleep(0.02)

    def until_state(self, job_id: str, *states: str) -> None:
        """Wait until the job is in one of these states."""
        self.until(lambda: job_of(self.database, job_id).state in states, f"{job_id} never got to {states}")

    def until_step(self, job_id: str, step: int) -> None:
        """Wait until the run has recorded this step."""
        self.until(lambda: job_of(self.database, job_id).step >= step, f"{job_id} never got to step {step}")

    def stop(self) -> None:
        """Kill all that is left."""
        self.bell.close()
        for worker in self.workers:
            if worker.poll() is None:
                os.kill(worker.pid, signal.SIGCONT)
                worker.kill()
            worker.wait()
        if self.broker_process is not None:
            self.kill_broker()
        self.broker.clean()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """SQLite, the embedded broker, and no worker yet. Nothing of it is left running afterwards."""
    tmp_path.joinpath("data").mkdir()
    broker = embedded(tmp_path / "data")
    settings = settings_for(tmp_path / "data", redis_url=broker.url, lease_seconds=2, heartbeat_seconds=0.3)
    with tables(settings.database) as database:
        installation = Installation(settings, database, broker)
        installation.start_broker()
        try:
            yield installation
        finally:
            installation.stop()
            left = installation.engines()
            for process in left:
                process.kill()
    assert left == [], "a process was left behind"
