"""What `make install` tells while it works, with a stand-in for Python that installs nothing."""

import os
import subprocess
from pathlib import Path

import pytest

STAND_IN = '#!/bin/sh\necho "$@" >> "$(dirname "$0")/called"\n'


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """The folder of a virtual environment that is none."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return tmp_path


def install(root: Path, folder: Path, output: int) -> list[str]:
    """Run the target with its output in `output`; how the stand-in was called."""
    words = ["make", "--no-print-directory", "install", f"BIN={folder}", f"STAMP={folder / 'stamp'}"]
    clean = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    subprocess.run(words, cwd=root, env=clean, stdout=output, stderr=subprocess.PIPE, check=True)
    return (folder / "called").read_text().splitlines()


def test_in_a_log_each_step_is_a_line(root: Path, bin_folder: Path) -> None:
    log = bin_folder / "log"
    with log.open("wb") as sink:
        called = install(root, bin_folder, sink.fileno())
    assert [line[:6] for line in log.read_text().splitlines() if " of 3" in line] == ["2 of 3", "3 of 3"]
    assert len(called) == 2
    assert all(" -qq " in line for line in called)


def test_on_a_terminal_pip_tells_what_it_does(root: Path, bin_folder: Path) -> None:
    _, terminal = os.openpty()
    called = install(root, bin_folder, terminal)
    assert len(called) == 2
    assert not any("-q" in line for line in called)
