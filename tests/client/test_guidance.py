"""What tells a user how to go on: the help of every command, empty lists, a job's next step, advice in commands."""

import pytest

from client.cli import ENDINGS, OPERATORS, commands_of, main, parser
from client.errors import EXIT_MEANS, ExitCode, in_commands
from tests.client.stand_in_server import StandIn


def test_an_empty_list_says_what_puts_something_there(
    logged_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("client.http.Client.listed", lambda *_, **__: iter(()))
    for words, says in (
        (["jobs"], "fiftytwo submit"),
        (["jobs", "--state", "failed"], "no job matches"),
        (["datasets"], "fiftytwo datasets upload"),
    ):
        assert main(words) == 0
        assert says in capsys.readouterr().out


def test_a_job_is_shown_with_what_comes_next(logged_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "job_1"]) == 0
    running = capsys.readouterr().out
    assert "running · train, step 1 of 3 · 1 s left" in running
    assert "fiftytwo watch job_1" in running
    logged_in.looks = 3
    assert main(["jobs", "job_1"]) == 0
    ended = capsys.readouterr().out
    assert "step" not in ended
    assert "fiftytwo download job_1" in ended


def test_advice_names_the_command_for_the_servers_request() -> None:
    assert in_commands("GET /v1/jobs lists yours") == "`fiftytwo jobs` lists yours"
    assert in_commands("GET /v1/jobs/job_1/logs") == "GET /v1/jobs/job_1/logs"


def test_operators_are_listed_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in OPERATORS)
    assert "exit codes" in printed


def test_the_help_of_each_command_names_all_that_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in commands_of(parser()).items():
        with pytest.raises(SystemExit, match="0"):
            main([*name.split(), "--help"])
        printed = capsys.readouterr().out
        for action in command._actions:
            if action.metavar != "ACTION":
                assert action.help, (name, action)
            assert all(flag in printed for flag in action.option_strings)
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("fiftytwo 0.")


def test_every_exit_code_stands_in_the_help() -> None:
    assert list(EXIT_MEANS) == list(ExitCode)
    assert all(f" {code.value} {EXIT_MEANS[code]}" in f" {' '.join(ENDINGS.split())}" for code in ExitCode)
