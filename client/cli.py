"""The command `fiftytwo`: words in, exit code out. What the commands do stands in `client.commands` and `app.cli`.

Operators' commands need the extra [server]; they are loaded by name when called, so that this module works without.
"""

import argparse
import difflib
import errno
import importlib
import importlib.metadata
import json
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, cast

from rich.console import Console
from rich.markup import escape

from client import commands, offline, submission
from client.commands import Session
from client.errors import EXIT_MEANS, BadUsage, ClientError, ExitCode, Interrupted

OPERATORS = {
    "serve": "the whole service on this machine: API, broker, workers",
    "api": "only the API",
    "worker": "only one worker",
    "migrate": "bring the database to this version",
    "admin-key": "make another admin key straight in the database, where the first is lost",
    "demo": "train, compress and prove a small model on a server of its own",
}
ENDINGS = textwrap.fill(f"exit codes: {'; '.join(f'{code.value} {means}' for code, means in EXIT_MEANS.items())}", 115)
_WITH_SERVER = f"""\
{ENDINGS}

the server and the key come from --server and --key, else FIFTYTWO_SERVER and FIFTYTWO_KEY, else `fiftytwo login`"""
_EPILOG = f"""\
for operators (needs the extra: pip install 'fiftytwo[server]'):
{chr(10).join(f"  {name:<12}{text}" for name, text in OPERATORS.items())}

{_WITH_SERVER}"""


class Operators(Protocol):
    """What the module of the operators' commands offers."""

    def main(self, words: Sequence[str]) -> int:
        """Run one operators' command."""


def load_operators() -> Operators:
    """The operators' commands; the one place where `client` touches the server's side, and only by name.

    Raises:
        BadUsage: the extra [server] is not installed.
    """
    try:
        return cast(Operators, importlib.import_module("app.cli"))
    except ModuleNotFoundError as error:
        raise BadUsage(
            f"operators' commands need the server's libraries ({error.name} is not installed)",
            remedy="pip install 'fiftytwo[server]'",
        ) from error


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code."""
    words = sys.argv[1:] if words is None else words
    try:
        if words and words[0] in OPERATORS:
            return load_operators().main(words)
        known = [*commands_of(grammar := parser()), *OPERATORS]
        if words and not words[0].startswith("-") and words[0] not in known:
            near = [f"did you mean {one}? All:" for one in difflib.get_close_matches(words[0], known, 1)]
            raise BadUsage(f"there is no command {words[0]}", remedy=" ".join([*near, "fiftytwo --help"]))
        parsed = grammar.parse_args(words)
        return int(parsed.run(Session(parsed)))
    except ClientError as error:
        _print_error(error, as_json="--json" in words)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; a submitted job goes on, and a download where it stopped", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except OSError as error:
        # The disk, a folder or a name that it does not take: whichever command met it, the user can act on it.
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room, then run it again" if full else "check the path, and who may write there"
        _print_error(BadUsage(f"{where}{error.strerror or error}", remedy=remedy), as_json="--json" in words)
        return int(ExitCode.REFUSED)


def _print_error(error: ClientError, *, as_json: bool) -> None:
    if as_json:
        kept = {"dataset": error.dataset} if error.dataset else {}
        print(json.dumps({"error": {**error.json(), **kept}}, ensure_ascii=False, indent=2))
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    kind, lines = "interrupted" if isinstance(error, Interrupted) else "error", error.lines()
    if error.dataset:
        lines.append(f"  the data set stays as {error.dataset}: submit again with --data {error.dataset}")
    for number, line in enumerate(lines):
        console.print(escape(f"{kind}: {line}" if number == 0 else line))


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the users' commands."""
    raw = argparse.RawDescriptionHelpFormatter
    top = _Parser(
        prog="fiftytwo",
        description="Training as a service with proof: submit data, get a compressed model and its receipt.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    top.add_argument("--version", action="version", version=f"fiftytwo {importlib.metadata.version('fiftytwo')}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    output, server = _shared_flags()

    def command(name: str, run: Callable[[Session], ExitCode], parent: Any = server) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").strip()
        epilog = _WITH_SERVER if parent is server else ENDINGS
        added = verbs.add_parser(
            name, help=text, description=text, parents=[parent], epilog=epilog, formatter_class=raw
        )
        added.set_defaults(run=run)
        return added

    command("login", commands.login)
    _datasets(command("datasets", commands.datasets))
    _submit(command("submit", submission.submit))
    command("watch", commands.watch).add_argument("job", metavar="JOB", help="its id (job_...)")
    jobs = command("jobs", commands.jobs)
    jobs.add_argument("job", metavar="JOB", nargs="?", help="show this one")
    for field in ("state", "task", "kind"):
        jobs.add_argument(f"--{field}", metavar="WORD", help=f"only jobs of this {field}")
    _limit(jobs)
    for move in (commands.cancel, commands.pause, commands.resume):
        command(move.__name__, move).add_argument("job", metavar="JOB", nargs="+", help="their ids (job_...)")
    _download(command("download", commands.download))
    predict = command("predict", commands.predict, output)
    _inputs(predict)
    predict.add_argument("--batch-size", metavar="N", type=_count, default=32, help="answered together (default 32)")
    verify = command("verify", offline.verify, output)
    verify.add_argument("folder", metavar="DIR", help="a downloaded folder, or its model.zip")
    verify.add_argument("--key", dest="receipt_key", help="public key of the server's receipts (default: as at login)")
    verify.add_argument("--data", metavar="FILE", help="labelled test rows as JSONL or CSV, to be answered again")
    _detect(command("detect", offline.detect, output))
    command("models", commands.models)
    shown = command("instructions", commands.instructions)
    shown.add_argument("name", metavar="NUMBER_OR_NAME", nargs="?", help="show this one")
    return top


def commands_of(top: argparse.ArgumentParser, above: str = "") -> dict[str, argparse.ArgumentParser]:
    """Every command below by its words, those of `datasets` too."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found[f"{above}{name}"] = command
                found |= commands_of(command, f"{above}{name} ")
    return found


def _shared_flags(default: Any = None) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The flags of every command, and those of every command that needs the server.

    A subcommand's subcommand takes the default SUPPRESS, or it would wipe out what stood before it.
    """
    output = argparse.ArgumentParser(add_help=False)
    unset = default if default is argparse.SUPPRESS else False
    output.add_argument("--json", action="store_true", default=unset, help="print one JSON document, not text")
    server = argparse.ArgumentParser(add_help=False, parents=[output])
    server.add_argument("--server", metavar="URL", default=default, help="address, such as http://127.0.0.1:8052")
    server.add_argument("--key", default=default, help="API key")
    return output, server


def _datasets(datasets: argparse.ArgumentParser) -> None:
    datasets.set_defaults(action="list")
    _limit(datasets)
    actions = datasets.add_subparsers(title="actions", metavar="ACTION", dest="action")
    _, server = _shared_flags(argparse.SUPPRESS)
    listing = "list them (what happens without an action)"
    actions.add_parser("list", help=listing, description=listing, parents=[server])
    upload = actions.add_parser("upload", help="upload a file", description="upload a file", parents=[server])
    upload.add_argument("file", metavar="FILE", help="CSV, JSONL, Parquet, or a ZIP of pictures")
    upload.add_argument("--task", required=True, help="text_classification, image_classification, ...")
    upload.add_argument("--name", help="a name to know it by")
    _upload_flags(upload)
    for action, text in (("show", "show one"), ("delete", "erase one and every copy")):
        actions.add_parser(action, help=text, description=text, parents=[server]).add_argument(
            "dataset", metavar="DATASET", help="its id (ds_...)"
        )


def _upload_flags(upload: argparse.ArgumentParser) -> None:
    for column in ("text", "label", "split", "group"):
        upload.add_argument(f"--{column}-column", metavar="NAME", help=f"the column of the {column}")
    upload.add_argument("--nominal-rows", metavar="N", type=_count, help="the public number of rows, for privacy")
    upload.add_argument("--invalid-rows", choices=["refuse", "skip"], help="what a bad row means (default refuse)")
    upload.add_argument("--max-invalid-fraction", type=float, metavar="F", help="most rows to skip, 0 to 1")


def _limit(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("--limit", metavar="N", type=_count, default=50, help="the newest so many (default 50)")


def _download(download: argparse.ArgumentParser) -> None:
    download.add_argument("job", metavar="JOB", help="a job, or an artifact by its id (art_...)")
    download.add_argument("--out", metavar="DIR", help="the folder to fill (default: named like the job)")
    download.add_argument("--kind", default="model", help="model (default), checkpoint, receipt, ...")


def _inputs(answering: argparse.ArgumentParser) -> None:
    answering.add_argument("folder", metavar="DIR", help="a downloaded folder, or its model.zip")
    answering.add_argument("input", metavar="TEXT_OR_FILE", nargs="+", help="a file is read as one text or one picture")
    answering.add_argument("--threads", metavar="N", type=_count, default=1, help="processor threads (default 1)")


def _detect(detect: argparse.ArgumentParser) -> None:
    _inputs(detect)
    detect.add_argument("--target-fpr", type=float, metavar="F", help="share of honest inputs that may be flagged")
    detect.add_argument("--signals", type=_words, metavar="LIST", help="some of the detector's signals, with commas")
    detect.add_argument("--control", choices=["fpr", "fdr"], default="fpr", help="what the share is of (default fpr)")


def _submit(submit: argparse.ArgumentParser) -> None:
    submit.add_argument("spec", metavar="SPEC.json", nargs="?", help="the body of POST /v1/jobs; flags go over it")
    submit.add_argument("--data", metavar="FILE", help="the file to train on, or an uploaded data set (ds_...)")
    submit.add_argument("--task", help="text_classification, image_classification, ...")
    submit.add_argument(
        "--instructions",
        type=_instructions,
        metavar="LIST",
        help="numbers and names with commas (1,11,warmup_schedule), or a JSON list for parameters",
    )
    submit.add_argument("--model", help="base model (default: the task's)")
    submit.add_argument("--name", help="a name to know the job by")
    submit.add_argument(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the spec, such as training.epochs=3 or limits.max_metric_loss=0.01; may be repeated",
    )
    _upload_flags(submit)
    submit.add_argument("--dry-run", action="store_true", help="show the plan and an estimate; keep nothing")
    submit.add_argument("--wait", action="store_true", help="follow the job to its end and print its receipt")
    submit.add_argument("--download", metavar="DIR", help="then put the model there (waits)")


def _instructions(text: str) -> list[Any]:
    """`1,11,warmup_schedule` or a JSON list."""
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"is no JSON list: {error}") from error
    words = [word.strip() for word in text.split(",") if word.strip()]
    return [int(word) if word.isdigit() else word for word in words]


def _words(text: str) -> list[str]:
    """`a,b` as its words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _assignment(text: str) -> tuple[str, Any]:
    """`training.epochs=3` as (path, value); a value that is no JSON is a string."""
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    try:
        return path, json.loads(value)
    except ValueError:
        return path, value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """Faults of the words take the same way out as every other error, so that --json holds for them too."""

    def error(self, message: str) -> NoReturn:
        raise BadUsage(message, remedy=f"{self.prog} --help")


if __name__ == "__main__":
    sys.exit(main())
