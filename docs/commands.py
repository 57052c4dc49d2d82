"""The page of the command `fiftytwo`: every command with what it takes, and the exit codes."""

import argparse
from collections.abc import Collection, Mapping

import app.cli
import client.cli
from client.errors import EXIT_MEANS
from docs.markdown import NOTE, table


def commands() -> str:
    """The page, read off the parsers."""
    users = client.cli.commands_of(client.cli.parser())
    operators = client.cli.commands_of(app.cli.parser())
    return "\n\n".join(
        [
            "# The command `fiftytwo`",
            NOTE,
            "The base package is enough for users: no PyTorch comes along. Into a pipe or a file no colour and no"
            " bar is written, and `NO_COLOR` is kept to. With `--json` a command prints one JSON document, also for an"
            " error. Errors of people's form go to standard error, each with its next step.",
            "A job does not need the command that follows it: after Ctrl-C, or where the server stays away for more"
            " than ten minutes, `fiftytwo watch JOB` follows it again. A download that broke off goes on where it"
            " stopped.",
            "## Exit codes",
            table(("code", "means"), [(f"`{code.value}`", means) for code, means in EXIT_MEANS.items()]),
            "## For users",
            "The server and the key come from `--server` and `--key`, else from `FIFTYTWO_SERVER` and `FIFTYTWO_KEY`,"
            " else from what `fiftytwo login` kept.",
            *_sections(users, shared={"json", "server", "key"}),
            "## For operators",
            "These need the extra: `pip install 'fiftytwo[server]'`.",
            *_sections(operators, shared=set()),
        ]
    )


def _sections(found: Mapping[str, argparse.ArgumentParser], shared: Collection[str]) -> list[str]:
    return [part for name, command in found.items() for part in _section(name, command, shared)]


def _section(name: str, command: argparse.ArgumentParser, shared: Collection[str]) -> list[str]:
    rows = [
        (f"`{_written(action)}`", action.help)
        for action in command._actions
        if action.help and action.dest not in {"help", *shared}
    ]
    told = [command.description] if command.description else []
    return [f"### {name}", *told, *([table(("", ""), rows)] if rows else [])]


def _written(action: argparse.Action) -> str:
    """The words of an argument as a user writes them."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    if not action.option_strings:
        return str(value)
    return action.option_strings[-1] if action.nargs == 0 else f"{action.option_strings[-1]} {value}"
