"""A job's progress without a terminal: a line a phase, and a few between; nothing where nobody reads."""

import io
from typing import Any

import pytest
from rich.console import Console

from client.cli import main
from client.http import Client
from client.progress import Lines, follow
from tests.client.stand_in_server import KEY, StandIn


def look(state: str, phase: str | None, step: int, total: int | None = 1000) -> dict[str, Any]:
    progress = {"step": step, "total_steps": total, "eta_seconds": 5.0}
    return {"state": state, "phase": phase, "progress": progress, "latest": {"train_loss": 0.5}}


def test_each_phase_has_a_line_and_few_come_between() -> None:
    lines = Lines()
    looks = [
        (0, look("queued", None, 0, None), True),
        (2, look("running", "data", 0, None), True),
        (4, look("running", "train", 0), True),
        (6, look("running", "train", 0), False),
        (8, look("running", "train", 300), False),  # far, but soon after the last line
        (14, look("running", "train", 310), True),
        (30, look("running", "train", 400), False),  # late, but hardly farther
        (31, look("running", "train", 420), True),
        (90, look("running", "train", 421), False),
        (91, look("running", "train", 421), True),  # a long silence would look like a stop
        (92, look("running", "export", 1000), True),
    ]
    assert [lines.line(job, now) is not None for now, job, _ in looks] == [told for _, _, told in looks]


def test_a_line_says_how_far_the_job_is() -> None:
    line = Lines().line(look("running", "train", 120), 0)
    assert line == "running · train  120/1000 · 5 s left  train_loss 0.5"


def test_without_a_terminal_lines_are_printed(server: StandIn) -> None:
    told = io.StringIO()
    with Client(server.url, KEY) as client:
        job = follow(client, "job_1", Console(file=told))
    assert job["state"] == "succeeded"
    assert told.getvalue() == "running · train  1/3 · 1 s left  train_loss 0.5\n"


def test_with_json_nothing_is_printed_beside_it(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIFTYTWO_SERVER", server.url)
    monkeypatch.setenv("FIFTYTWO_KEY", KEY)
    assert main(["watch", "job_1", "--json"]) == 0
    assert capsys.readouterr().err == ""
    server.looks = 0
    assert main(["watch", "job_1"]) == 0
    assert "running · train" in capsys.readouterr().err
