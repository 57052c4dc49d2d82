"""A job's progress without a terminal: a line a phase, and a few between; nothing where nobody reads."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from client.cli import main
from client.errors import Unreachable
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
    assert line == "running · train  step 120 of 1,000 · 5 s left  loss 0.5"


def test_without_a_terminal_lines_are_printed(server: StandIn) -> None:
    told = io.StringIO()
    with Client(server.url, KEY) as client:
        job = follow(client, "job_1", Console(file=told))
    assert job["state"] == "succeeded"
    assert told.getvalue() == "running · train  step 1 of 3 · 1 s left  loss 0.5\n"


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


def test_once_every_step_is_taken_no_time_is_left_to_tell() -> None:
    assert Lines().line(look("running", "measure", 1000), 0) == "running · measure"
    assert Lines().line(look("running", "converting_base_model", 0, None), 0) == (
        "running · converting base model  loss 0.5"
    )


def test_a_server_that_is_away_for_a_while_is_waited_for(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(Client, "_rest", lambda *_: None)
    with Client(server.url, KEY, attempts=1) as client:
        looks = client.watch("job_1", every=0)
        assert next(looks)["state"] == "running"
        server.refuse_next = [503, 502]
        assert next(looks)["state"] == "running"
        server.looks, server.refuse_next = 0, []
        after_first: Iterator[list[int]] = iter([[], [503, 503]])
        ask = client.job

        def interrupted(*words: Any, **flags: Any) -> dict[str, Any]:
            answer = ask(*words, **flags)
            server.refuse_next = next(after_first, [])
            return answer

        monkeypatch.setattr(client, "job", interrupted)
        job = follow(client, "job_1", Console(file=told))
    assert job["state"] == "succeeded"
    assert told.getvalue().count("the server does not answer") == 1


def test_a_server_that_stays_away_ends_the_watch_with_the_way_on(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Client, "_rest", lambda *_: None)
    with Client(server.url, KEY, attempts=1) as client:
        looks = client.watch("job_1", every=0, patience=-1)
        next(looks)
        server.refuse_next = [503]
        with pytest.raises(Unreachable):
            next(looks)
    server.refuse_next = [503] * 5
    assert main(["watch", "job_1", "--server", server.url, "--key", KEY]) == 3
    assert "fiftytwo watch job_1" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("client.http.time.sleep", interrupt)
    assert main(["watch", "job_1", "--server", server.url, "--key", KEY]) == 130
    printed = capsys.readouterr().err
    assert "interrupted: job_1 goes on" in printed
    assert "fiftytwo watch job_1" in printed
    assert "fiftytwo cancel job_1" in printed
