"""Starts what is measured as real processes (the API alone, the whole service, a bare Starlette) and ends them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from pydantic import SecretStr

from app.auth.bootstrap import bootstrap
from app.broker import embedded
from app.database import Database
from app.migrate import migrate
from app.settings import Settings
from benchmarks.texts import ROOT
from client.http import Client, Json
from engine.orphans import die_with

HOST = "127.0.0.1"
KEY = "benchmark-key"
_START_SECONDS = 120
_STOP_SECONDS = 60
_UNBOUND = {"FIFTYTWO_REQUESTS_PER_SECOND": "1e9", "FIFTYTWO_MAX_OPEN_JOBS": "1000000000"}


@dataclass(frozen=True)
class Server:
    """A process that listens, and what it works on."""

    process: psutil.Process
    port: int
    settings: Settings
    broker_url: str = ""

    def client(self) -> Client:
        """A client with the admin key."""
        return Client(f"http://{HOST}:{self.port}", KEY)

    def processor_seconds(self) -> float:
        """Of this process so far, all its threads."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def api(data_dir: Path) -> Iterator[Server]:
    """The API with its broker and no worker, so that jobs stay queued."""
    port = free_port()
    settings = settings_for(data_dir)
    migrate(settings)
    database = Database(settings.database)
    bootstrap(database, settings)
    database.close()
    broker = embedded(data_dir)
    with child(broker.command, {}, data_dir / "broker.log"):
        if not broker.answers(_START_SECONDS):
            raise RuntimeError("the embedded broker does not start")
        environment = {
            **_UNBOUND,
            "FIFTYTWO_DATA_DIR": str(data_dir),
            "FIFTYTWO_REDIS_URL": broker.url,
            "FIFTYTWO_BOOTSTRAP_KEY": KEY,
        }
        command = [sys.executable, "-m", "client.cli", "api", "--port", str(port)]
        try:
            with child(command, environment, data_dir / "api.log") as process:
                _await(port, process)
                yield Server(psutil.Process(process.pid), port, settings, broker.url)
        finally:
            broker.clean()


@contextmanager
def service(data_dir: Path, *, workers: int = 1, engine: Sequence[str] = ()) -> Iterator[Server]:
    """The whole of `fiftytwo serve`."""
    port = free_port()
    command = [sys.executable, "-m", "client.cli", "serve", "--json", "--port", str(port), "--data-dir", str(data_dir)]
    environment = {**_UNBOUND, "FIFTYTWO_BOOTSTRAP_KEY": KEY, "FIFTYTWO_ENGINE_COMMAND": " ".join(engine)}
    data_dir.mkdir(parents=True, exist_ok=True)
    with child([*command, "--workers", str(workers)], environment, data_dir / "serve.log") as process:
        _await(port, process)
        settings = settings_for(data_dir)
        yield Server(psutil.Process(process.pid), port, settings, embedded(data_dir).url)


@contextmanager
def bare(folder: Path, file: Path | None = None) -> Iterator[Server]:
    """The bare Starlette, served with the flags of our own API."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare:app", "--port", str(port), "--no-access-log"]
    flags = ["--loop", "uvloop", "--http", "httptools", "--no-server-header", "--log-level", "warning"]
    with child([*command, *flags], {"BARE_FILE": str(file or "")}, folder / "bare.log") as process:
        _await(port, process)
        yield Server(psutil.Process(process.pid), port, settings_for(folder))


def settings_for(data_dir: Path) -> Settings:
    """The defaults on this folder, whatever the environment says of a real installation."""
    return Settings(data_dir=data_dir, database_url=None, storage_url=None, bootstrap_key=SecretStr(KEY))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def upload(client: Client, path: Path, task: str, **fields: str) -> str:
    """Upload a data set, wait until it is checked, and give its id; `fields` as in `POST /v1/datasets`."""
    dataset = client.upload(path, {"task": task, **fields})
    while dataset["status"] == "checking":
        time.sleep(0.2)
        dataset = client.get(f"/v1/datasets/{dataset['id']}")
    if dataset["status"] != "ready":
        raise RuntimeError(f"the data set is {dataset['status']}: {dataset['problems']}")
    return str(dataset["id"])


def succeeded(client: Client, job_id: str) -> Json:
    """Wait for a job's end and insist that it is a good one."""
    job = client.wait(job_id)
    if job["state"] != "succeeded":
        raise RuntimeError(f"the job {job['state']}: {job['error']}")
    return job


@contextmanager
def child(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the context lasts; settings of a real installation do not reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYTWO_")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
            preexec_fn=partial(die_with, os.getpid()),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the process on port {port} does not listen")
