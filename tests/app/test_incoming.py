"""Where uploads land, and what is swept of them."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.incoming import landing, sweep

HOLD = """
import sys, time
from pathlib import Path
from app.incoming import landing
with landing(Path(sys.argv[1])) as folder:
    (folder / "upload").write_bytes(b"rows")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_leaves_is_swept_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            left = Path(process.stdout.readline().strip())
            with landing(tmp_path) as mine:
                (mine / "update").touch()
                sweep(tmp_path)
                assert (left / "upload").exists()
                assert (mine / "update").exists()
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert (left / "upload").exists()
                sweep(tmp_path)
                assert not left.exists()
                assert (mine / "update").exists()
            assert list((tmp_path / "incoming").iterdir()) == []
        finally:
            process.kill()


def test_a_folder_that_is_swept_before_it_is_held_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    plain: Any = tempfile.mkdtemp

    def swept_at_once(**options: Path) -> str:
        made.append(plain(**options))
        if len(made) == 1:
            sweep(tmp_path)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept_at_once)
    with landing(tmp_path) as folder:
        assert [str(folder)] == made[1:]
        assert folder.is_dir()


def test_the_api_sweeps_when_it_starts(service: FastAPI) -> None:
    left = service.state.settings.data_dir / "incoming" / "tmpleft"
    os.makedirs(left)
    (left / "upload").touch()
    with TestClient(service):
        assert not left.exists()
