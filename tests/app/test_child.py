"""A supervised process: started again when it dies, stopped with its group, and dead once its parent is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import child as module
from app.child import Child

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition; fail if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended (one that only waits to be reaped has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[list[str]], Child]]:
    """Make children that end with the test."""
    made: list[Child] = []

    def new(command: list[str]) -> Child:
        made.append(Child(f"child-{len(made)}", command, os.environ, tmp_path / "logs" / f"{len(made)}.log"))
        return made[-1]

    yield new
    for child in made:
        child.stopped(0)


def test_a_dead_child_is_started_again_after_a_pause(
    make: Callable[[list[str]], Child], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.05)
    child = make(SLEEP)
    dead: list[int] = []
    child.died = dead.append
    child.start()
    assert child.process is not None
    first = child.process.pid
    child.keep()
    assert child.process.pid == first
    assert dead == []
    child.process.kill()
    until(lambda: not child.alive())
    child.keep()
    assert not child.alive()
    assert dead == [first]
    until(child.keep)
    assert child.process.pid != first
    assert dead == [first], "each is told of once"
    assert "ended with -9" in caplog.text


def test_the_pause_doubles_with_every_early_death(
    make: Callable[[list[str]], Child], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.001)
    child = make([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    child._pause = 0.0005
    child.start()
    until(lambda: (child.keep(), len(caplog.records) == 3)[1])
    told = [record.args for record in caplog.records]
    assert [args[3] for args in told if isinstance(args, tuple)] == [0.0005, 0.001, 0.001]


def test_a_child_that_does_not_obey_is_killed_with_its_group(
    make: Callable[[list[str]], Child], tmp_path: Path
) -> None:
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid) + '\\n'); time.sleep(600)"
    )
    child = make([sys.executable, "-c", stubborn])
    child.start()
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    child.ask_to_stop()
    assert child.stopped(0.2) is False
    until(lambda: gone(int((tmp_path / "pid").read_text())))


def test_a_child_that_obeys_is_not_killed(make: Callable[[list[str]], Child]) -> None:
    child = make(SLEEP)
    child.start()
    child.ask_to_stop()
    assert child.stopped(20) is True
    assert child.process is not None
    assert child.process.returncode == -signal.SIGTERM


def test_what_it_says_is_in_its_log_and_a_long_log_is_put_aside(
    make: Callable[[list[str]], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOG_BYTES", 3)
    child = make([sys.executable, "-S", "-c", "print('hello')"])
    for _ in range(2):
        child.start()
        until(lambda: not child.alive())
    assert child.log_file.read_text() == "hello\n"
    assert child.log_file.with_suffix(".log.1").read_text() == "hello\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    parent_code = (
        "import os, sys, time; from pathlib import Path; from app.child import Child;"
        f"c = Child('c', {SLEEP!r}, os.environ, Path({str(tmp_path / 'log')!r})); c.start();"
        "print(c.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    until(lambda: gone(pid))
