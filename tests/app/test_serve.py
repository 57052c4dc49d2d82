"""`fiftytwo serve`: what stops it from starting, and that however it ends nothing runs on and no job is lost."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from app.auth.keyring import KeyRing
from app.database import Database
from app.serve import CannotServe, device, free_port, held
from app.telling import next_steps
from client.cli import main, parser
from tests.service import STAND_IN, artifacts_of, job_of, put_job, states_of

CANNOT_OUTLIVE = pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's death is Linux's")


class Served:
    """A running `fiftytwo serve` with the stand-in engine."""

    def __init__(self, folder: Path, *, as_json: bool = True) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.facts: dict[str, str] = {}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYTWO_")}
        # No test lives to see a lease of such a length lapse.
        times = {"FIFTYTWO_RESCUE_SECONDS": "1", "FIFTYTWO_LEASE_SECONDS": "3600"}
        environment = {**kept, "FIFTYTWO_ENGINE_COMMAND": STAND_IN, **times}
        command = [sys.executable, "-m", "client.cli", "serve", "--port", "0", "--data-dir", str(folder)]
        command += ["--json"] if as_json else []
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, process_group=0
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(line.decode())
            self.facts |= json.loads(line) if as_json else {}
            if "address" in self.facts or "demo" in self.told[-1]:
                return
        pytest.fail(self.log.read_text())

    def descendants(self) -> list[psutil.Process]:
        """Every process it started, however far down."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start servers on one data folder; whatever still runs at the end is ended."""
    running: list[Served] = []

    def start(**how: bool) -> Served:
        running.append(Served(tmp_path / "data", **how))
        return running[-1]

    yield start
    for served in running:
        served.end(signal.SIGTERM)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The served database, opened beside the server."""
    found = Database(f"sqlite:///{tmp_path / 'data' / 'fiftytwo.db'}")
    yield found
    found.close()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition; fail if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def words(process: psutil.Process) -> str:
    """Its command line; empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs; one that only waits to be reaped does not."""
    return all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in processes)


@CANNOT_OUTLIVE
def test_kill_9_leaves_nothing_running_and_a_restart_goes_on(serve: Callable[[], Served], database: Database) -> None:
    first = serve()
    assert first.facts["key"].startswith("ftw_")
    headers = {"Authorization": f"Bearer {first.facts['key']}"}
    assert httpx.get(f"{first.facts['address']}/v1/keys", headers=headers, trust_env=False).status_code == 200
    undisturbed = put_job(database, steps=40, checkpoint_every=5)
    until(lambda: job_of(database, undisturbed).state == "succeeded")
    job = put_job(database, steps=40, sleep=0.1, checkpoint_every=5)
    until(lambda: job_of(database, job).step > 5)
    processes = first.descendants()
    names = " ".join(words(one) for one in processes)
    for part in ("unixsocket", "client.cli api", "client.cli worker", "stand_in_engine"):
        assert part in names
    first.end(signal.SIGKILL)
    until(lambda: all_gone(processes), seconds=10)

    second = serve()
    assert "key" not in second.facts
    until(lambda: job_of(database, job).state == "succeeded")
    assert states_of(database, job) == ["queued", "running", "queued", "running", "succeeded"]
    assert job_of(database, job).lapses == 0  # it was released at the start, it did not wait for its lease to lapse
    assert artifacts_of(database, job)["model"] == artifacts_of(database, undisturbed)["model"]


def test_sigterm_ends_in_order_and_hands_the_job_back(serve: Callable[[], Served], database: Database) -> None:
    served = serve()
    job = put_job(database, steps=2000, sleep=0.05, checkpoint_every=5)
    until(lambda: job_of(database, job).state == "running")
    processes = served.descendants()
    assert served.end(signal.SIGTERM) == 0
    assert all_gone(processes)
    assert states_of(database, job) == ["queued", "running", "queued"]
    assert job_of(database, job).lapses == 0
    assert not (served.folder / "broker" / "r.sock").exists()
    assert "was killed" not in served.log.read_text()


def test_a_dead_part_is_started_again_with_a_line_in_the_log(serve: Callable[[], Served], database: Database) -> None:
    served = serve()
    parts = ("unixsocket", "client.cli api", "client.cli worker")
    victims = [one for one in served.descendants() if any(part in words(one) for part in parts)]
    assert len(victims) == 3
    for one in victims:
        one.kill()

    def risen() -> bool:
        alive = [words(one) for one in served.descendants() if one not in victims]
        return all(any(part in line for line in alive) for part in parts)

    until(lambda: all_gone(victims) and risen())
    for name in ("broker", "api", "worker-1"):
        assert f"{name} (process " in served.log.read_text()
    job = put_job(database, steps=1)
    until(lambda: job_of(database, job).state == "succeeded")


def test_the_job_of_a_dead_worker_does_not_wait_for_its_lease(serve: Callable[[], Served], database: Database) -> None:
    served = serve()
    job = put_job(database, steps=40, sleep=0.1, checkpoint_every=5)
    until(lambda: job_of(database, job).step > 5)
    (worker,) = [one for one in served.descendants() if "client.cli worker" in words(one)]
    worker.kill()
    until(lambda: job_of(database, job).state == "succeeded")
    assert states_of(database, job) == ["queued", "running", "queued", "running", "succeeded"]
    assert job_of(database, job).lapses == 1  # so a job that kills its worker is not tried for ever
    assert f"job {job} lost its worker: it is queued" in served.log.read_text()


def test_people_are_told_the_next_step_and_nothing_of_the_schema(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(as_json=False)
    told = {name: rest.split()[0] for name, _, rest in (line.strip().partition(": ") for line in served.told) if rest}
    assert told["key"].startswith("ftw_")
    exports = [line.split()[1].split("=") for line in served.told if line.startswith("  export ")]
    assert exports == [["FIFTYTWO_SERVER", told["address"]], ["FIFTYTWO_KEY", told["key"]]]
    for name, value in exports:
        monkeypatch.setenv(name, value)
    assert main(["jobs"]) == 0
    (line,) = [line for line in served.told if " submit " in line]
    assert parser().parse_args(shlex.split(line)[1:]).task == "text_classification"
    assert served.log.read_text() == ""


def test_the_next_step_of_a_later_start_shows_no_key() -> None:
    assert "FIFTYTWO_KEY=..." in next_steps("http://127.0.0.1:1", None)


def test_a_folder_is_served_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with held(tmp_path):
        assert main(["serve", "--data-dir", str(tmp_path), "--port", "0"]) == 1
    printed = capsys.readouterr().err
    assert f"process {os.getpid()}" in printed
    assert "--data-dir DIR" in printed
    with held(tmp_path):
        pass


def test_a_port_in_use_names_the_next_step() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe) as refused:
            free_port("127.0.0.1", port, seconds=0)
    assert str(port) in refused.value.detail
    assert "--port" in refused.value.remedy
    assert free_port("127.0.0.1", port, seconds=0) == port
    assert free_port("127.0.0.1", 0) > 0


def test_settings_out_of_bounds_are_all_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIFTYTWO_WORKERS", "0")
    assert main(["serve", "--port", "99999"]) == 2
    printed = capsys.readouterr().err
    assert "FIFTYTWO_WORKERS" in printed
    assert "FIFTYTWO_PORT" in printed


def test_a_worker_without_a_broker_names_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FIFTYTWO_REDIS_URL", raising=False)
    assert main(["worker"]) == 2
    assert "fiftytwo serve" in capsys.readouterr().err


def test_migrate_makes_the_tables_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FIFTYTWO_DATABASE_URL", raising=False)
    for _ in range(2):
        assert main(["migrate", "--data-dir", str(tmp_path / "data"), "--json"]) == 0
    assert capsys.readouterr().out.splitlines() == ['{"migrated": true}'] * 2
    database = Database(f"sqlite:///{tmp_path / 'data' / 'fiftytwo.db'}")
    job = put_job(database)
    assert job_of(database, job).state == "queued"
    database.close()


def test_migrate_stores_the_operators_first_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIFTYTWO_DATABASE_URL", raising=False)
    for secret in ("given-by-the-operator", "and-another-later"):
        monkeypatch.setenv("FIFTYTWO_BOOTSTRAP_KEY", secret)
        assert main(["migrate", "--data-dir", str(tmp_path)]) == 0
    with closing(Database(f"sqlite:///{tmp_path / 'fiftytwo.db'}")) as database:
        keys = KeyRing(database)
        first, later = (keys.look_up(keys.digest(one)) for one in ("given-by-the-operator", "and-another-later"))
    assert first is not None
    assert (first.tenant, first.role, later) == ("default", "admin", None)


def test_gpus_are_dealt_out_unless_the_operator_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert device(1) == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("app.serve.Path.glob", lambda *_: [Path("a"), Path("b")])
    assert [device(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["0", "1", "0"]
    monkeypatch.setattr("app.serve.Path.glob", lambda *_: [])
    assert device(0) == {}
