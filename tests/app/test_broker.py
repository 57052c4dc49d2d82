"""The embedded broker: its program, its socket's length, and what it keeps when it is killed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.broker import NoBroker, embedded, program


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to end after the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def start(command: list[str], started: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start a broker that the fixture ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    started.append(process)
    return process


def test_a_killed_broker_keeps_what_it_was_told(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    broker = embedded(tmp_path)
    process = start(broker.command, started)
    assert broker.answers(10)
    with redis.Redis(unix_socket_path=str(broker.socket)) as connection:
        connection.config_set("appendfsync", "always")
        connection.rpush("jobs", *range(20))
    process.kill()
    process.wait()
    assert not broker.answers(0.1)
    start(broker.command, started)
    assert broker.answers(10)
    with redis.Redis(unix_socket_path=str(broker.socket)) as connection:
        assert connection.llen("jobs") == 20
    broker.clean()
    assert not broker.socket.exists()


def test_it_listens_on_its_socket_alone(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    broker = embedded(tmp_path)
    start(broker.command, started)
    assert broker.answers(10)
    with redis.Redis(unix_socket_path=str(broker.socket)) as connection:
        assert connection.info("server")["tcp_port"] == 0
    assert broker.socket.stat().st_mode & 0o077 == 0


def test_a_long_folder_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    broker = embedded(deep)
    assert len(str(broker.socket)) < 100
    assert broker.folder == deep / "broker"
    assert broker.url == f"redis+socket://{broker.socket}"
    broker.clean()
    assert not broker.socket.parent.exists()


def test_damaged_data_is_put_aside(tmp_path: Path) -> None:
    broker = embedded(tmp_path)
    (broker.folder / "appendonly.aof").write_text("damage")
    aside = broker.set_aside()
    assert (aside / "appendonly.aof").read_text() == "damage"
    assert list(broker.folder.iterdir()) == []


def test_a_program_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "redis-server"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == str(mine)
    mine.unlink()
    assert program().endswith("valkey-server")


def test_without_any_program_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NoBroker, match="FIFTYTWO_REDIS_URL"):
        program()
