"""A dry run shows the plan and leaves no data set behind; a submit that is refused says what stays."""

import json
from pathlib import Path

import pytest

from client.cli import main
from client.errors import Refused
from tests.client.stand_in_server import StandIn
from tests.client.test_cli import run_json

CHOSEN = '[20, {"name": "structured_pruning", "ratio": 0.4}]'


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A submit of a small file."""
    path = tmp_path / "mail.csv"
    path.write_text("text,label\nfree prize,spam\nhello,ham\n")
    return ["submit", "--data", str(path), "--task", "a", "--instructions", CHOSEN]


def test_the_plan_is_told_in_order_with_what_was_asked_for(
    logged_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "--data", "ds_1", "--task", "a", "--instructions", CHOSEN, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    header, *rows = [line.split() for line in printed.splitlines()[:3]]
    assert header == ["order", "number", "name", "parameters", "what", "it", "does"]
    assert rows[0] == ["1", "20", "warmup_schedule", "defaults", "Warms", "up."]
    assert rows[1] == ["2", "45", "structured_pruning", "ratio", "0.4", "Prunes."]
    assert "about 1 min 23 s" in printed
    assert "about 91.7 MB" in printed
    assert not logged_in.seen("POST", "/v1/datasets")
    assert not logged_in.seen("DELETE", "/v1/datasets/ds_1")


def test_the_file_of_a_dry_run_is_erased_again(
    logged_in: StandIn, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--dry-run"]) == 0
    assert "erased again" in capsys.readouterr().out
    assert json.loads(logged_in.seen("POST", "/v1/jobs")[-1][1])["dataset"] == "ds_1"
    assert len(logged_in.seen("DELETE", "/v1/datasets/ds_1")) == 1
    code, answer = run_json(capsys, *words, "--dry-run")
    assert (code, answer["dataset"], answer["plan"][0]["number"]) == (0, None, 20)


def test_so_is_that_of_a_dry_run_that_is_refused_or_interrupted(
    logged_in: StandIn, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--name", "bad_for_this_data", "--dry-run"]) == 2
    assert "ds_1" not in capsys.readouterr().err
    assert len(logged_in.seen("DELETE", "/v1/datasets/ds_1")) == 1
    monkeypatch.setattr("client.submission.check_all_but_data", lambda *_: None)
    monkeypatch.setattr("client.http.Client.post", _interrupted)
    assert main([*words, "--dry-run"]) == 130
    assert len(logged_in.seen("DELETE", "/v1/datasets/ds_1")) == 2


def test_a_data_set_that_could_not_be_erased_is_named(
    logged_in: StandIn, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise Refused(403, {"title": "Not allowed"})

    monkeypatch.setattr("client.http.Client.delete", refused)
    assert main([*words, "--dry-run"]) == 0
    assert "stays as ds_1: submit with --data ds_1" in capsys.readouterr().out
    assert run_json(capsys, *words, "--dry-run")[1]["dataset"] == "ds_1"


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
