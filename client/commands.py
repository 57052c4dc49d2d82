"""What each of the users' commands does. Knows the client and the tables; parsing of words stands in `client.cli`."""

import argparse
import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.markup import escape

from client import account, tables
from client.archive import unpack
from client.artifact import Package
from client.errors import BadUsage, ExitCode, Interrupted, Unreachable, fault_lines
from client.http import TERMINAL, Client, Json
from client.inference import is_table, like_files, predictions
from client.progress import Download, follow

UPLOAD_FIELDS = (
    "task",
    "name",
    "text_column",
    "label_column",
    "split_column",
    "group_column",
    "nominal_rows",
    "invalid_rows",
    "max_invalid_fraction",
)


class Session:
    """One run of the command: its words, where it prints, and the server once it is needed."""

    def __init__(self, words: argparse.Namespace) -> None:
        self.words = words
        self.json: bool = words.json
        # Into a file or a pipe there is no width to keep to, and broken lines are hard to search.
        self.out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        self.progress = Console(stderr=True, quiet=self.json)

    def client(self) -> Client:
        """The server that the user meant."""
        found = account.find(self.words.server, self.words.key)
        return Client(found.server, found.key)

    def print_json(self, content: Any) -> None:
        """The one JSON document of a run with --json."""
        print(json.dumps(content, ensure_ascii=False, indent=2))

    def say(self, line: str) -> None:
        """A line for people; nothing with --json."""
        if not self.json:
            self.out.print(line, markup=False, soft_wrap=True)

    def warn_of_files(self, package: Package, inputs: Sequence[str]) -> None:
        """Say which inputs look like files and are none, and which are tables; of pictures a wrong file is refused."""
        if package.task == "image_classification":
            return
        for word in like_files(inputs):
            self.progress.print(f"note: there is no file {word}: it is read as a text", markup=False, soft_wrap=True)
        for word in filter(is_table, inputs):
            told = f"note: {word} is read as one text, not row by row; `fiftytwo verify DIR --data FILE` answers rows"
            self.progress.print(told, markup=False, soft_wrap=True)


def login(session: Session) -> ExitCode:
    """Check a key against its server and keep both for later commands."""
    server, key = account.given(session.words.server, session.words.key)
    server = server or account.DEFAULT_SERVER
    key = key or (getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline().strip())
    if not key:
        raise BadUsage("no key given", remedy="fiftytwo login --server URL --key KEY, or set FIFTYTWO_KEY")
    with Client(server, key) as client:
        pinned = str(client.get("/v1/receipt-key")["public_key"])
    path = account.save(account.Account(server, key, pinned))
    session.say(f"logged in to {server}; kept in {path}, with the key of its receipts: {pinned}")
    if session.json:
        session.print_json({"server": server, "file": str(path), "receipt_key": pinned})
    return ExitCode.OK


def datasets(session: Session) -> ExitCode:
    """List, show, upload or delete data sets."""
    words = session.words
    with session.client() as client:
        if words.action == "upload":
            return _show_dataset(session, sent(session, client, Path(words.file), upload_fields(session)))
        if words.action == "show":
            return _show_dataset(session, client.get(f"/v1/datasets/{words.dataset}"))
        if words.action == "delete":
            client.delete(f"/v1/datasets/{words.dataset}")
            session.say(f"deleted {words.dataset}")
            if session.json:
                session.print_json({"id": words.dataset, "deleted": True})
            return ExitCode.OK
        found = list(client.listed("/v1/datasets", at_most=words.limit, order="desc"))
    empty = "there is no data set yet\n  next: fiftytwo datasets upload --help"
    _listed(session, found, ("id", "name", "task", "status", "rows", "labels", "created_at"), empty)
    return ExitCode.OK


def _show_dataset(session: Session, dataset: Json) -> ExitCode:
    if session.json:
        session.print_json(dataset)
    else:
        tables.rows(session.out, [dataset], ("id", "name", "task", "status", "rows", "labels"))
        for line in fault_lines({"errors": dataset.get("problems")}):
            session.say(line)
    return ExitCode.OK


def upload_fields(session: Session) -> dict[str, str]:
    """The flags of an upload as the fields of its form."""
    fields = {name: str(value) for name in UPLOAD_FIELDS if (value := getattr(session.words, name, None)) is not None}
    if "task" not in fields:
        raise BadUsage("the task of the data is not given", remedy="--task text_classification, or another task")
    return fields


def sent(session: Session, client: Client, path: Path, fields: Mapping[str, str]) -> Json:
    """Upload a data set."""
    with session.progress.status(escape(f"uploading {path.name}")):
        return client.upload(path, fields)


def watch(session: Session) -> ExitCode:
    """Follow a job to its end."""
    with session.client() as client:
        return see_through(session, client, session.words.job, None)


def see_through(session: Session, client: Client, job_id: str, folder: str | None) -> ExitCode:
    """Wait for the end, fetch what there is, print the receipt; the exit code tells how the job ended."""
    job = _followed(session, client, job_id)
    kinds = {one.get("kind") for one in job.get("artifacts") or []}
    if folder and "model" in kinds:
        job["downloaded"] = [str(path) for path in _fetch(session, client, job_id, "model", Path(folder))]
    receipt = client.get(f"/v1/jobs/{job_id}/receipt") if "receipt" in kinds else None
    if session.json:
        session.print_json({**job, "receipt": receipt})
    else:
        _show_end(session, job, receipt)
        if job.get("downloaded"):
            session.say(f"the model is in {folder}\n  next: fiftytwo predict {folder} INPUT")
    return ExitCode.OK if job["state"] == "succeeded" else ExitCode.FAILED


def _followed(session: Session, client: Client, job_id: str) -> Json:
    try:
        return follow(client, job_id, session.progress)
    except KeyboardInterrupt:
        again = f"fiftytwo watch {job_id} to look again, fiftytwo cancel {job_id} to end it"
        raise Interrupted(f"{job_id} goes on", remedy=again) from None
    except Unreachable as error:
        error.remedy = f"{error.remedy}; then fiftytwo watch {job_id}: the job does not need this command"
        raise


def _show_end(session: Session, job: Json, receipt: Json | None) -> None:
    if receipt:
        tables.receipt(session.out, receipt)
    session.say(f"{job['id']} {job['state']}")
    _show_error(session, job)


def _show_error(session: Session, job: Json) -> None:
    if error := job.get("error"):
        session.say(f"{error.get('code')}: {error.get('detail') or error.get('title')}")
        for line in fault_lines(error):
            session.say(line)
        if error.get("remedy"):
            session.say(f"  next: {error['remedy']}")


def jobs(session: Session) -> ExitCode:
    """List jobs, or show one."""
    words = session.words
    with session.client() as client:
        if words.job:
            job = client.job(words.job)
            if session.json:
                session.print_json(job)
            else:
                tables.job(session.out, job)
                _show_error(session, job)
            return ExitCode.OK
        query = {"state": words.state, "task": words.task, "kind": words.kind}
        found = list(client.listed("/v1/jobs", at_most=words.limit, order="desc", **query))
    if not session.json:
        # Of a job that has ended the phase says only which was the last.
        found = [{**one, "phase": None if one["state"] in TERMINAL else one.get("phase")} for one in found]
    empty = "no job matches" if any(query.values()) else "there is no job yet\n  next: fiftytwo submit --help"
    _listed(session, found, ("id", "name", "state", "phase", "task", "created_at"), empty)
    return ExitCode.OK


def cancel(session: Session) -> ExitCode:
    """Ask the server to cancel jobs."""
    return _moved(session, "cancel")


def pause(session: Session) -> ExitCode:
    """Ask the server to pause jobs after their next checkpoint."""
    return _moved(session, "pause")


def resume(session: Session) -> ExitCode:
    """Let paused jobs go on."""
    return _moved(session, "resume")


def _moved(session: Session, move: str) -> ExitCode:
    with session.client() as client:
        found = [client.post(f"/v1/jobs/{job_id}/{move}") for job_id in session.words.job]
    if session.json:
        session.print_json(found)
    for job in found:
        session.say(f"{job['id']} {job['state']}")
    return ExitCode.OK


def download(session: Session) -> ExitCode:
    """Fetch an artifact of a job; a model package is unpacked beside its ZIP."""
    words = session.words
    with session.client() as client:
        if words.job.startswith("job_") and client.job(words.job)["state"] not in TERMINAL:
            session.say(f"{words.job} has not ended yet; taking what it has so far")
        paths = _fetch(session, client, words.job, words.kind, Path(words.out or words.job))
    if session.json:
        session.print_json([str(path) for path in paths])
    for path in paths:
        session.say(str(path))
    return ExitCode.OK


def _fetch(session: Session, client: Client, name: str, kind: str, folder: Path) -> list[Path]:
    artifact = client.get(f"/v1/artifacts/{name}") if name.startswith("art_") else client.artifact(name, kind)
    filename = Path(str(artifact["filename"])).name
    with Download(session.progress, filename, int(artifact["size_bytes"])) as seen:
        path = client.download(artifact, folder / filename, seen)
    return [path, *(unpack(path, folder) if artifact["kind"] == "model" else [])]


def predict(session: Session) -> ExitCode:
    """Answer inputs with a downloaded model; no server is needed."""
    words = session.words
    package = Package(words.folder, threads=words.threads)
    session.warn_of_files(package, words.input)
    names, found = predictions(package, words.input, words.batch_size)
    if session.json:
        answers = zip(names, found, strict=True)
        session.print_json(
            [{"input": one, "label": p.label, "score": p.score, "scores": dict(p.scores)} for one, p in answers]
        )
    else:
        tables.predictions(session.out, names, found)
    return ExitCode.OK


def models(session: Session) -> ExitCode:
    """List the base models that a job can begin with."""
    with session.client() as client:
        found = [one for one in client.listed("/v1/models") if one.get("job") is None]
    _listed(session, found, ("id", "task", "default_for"))
    return ExitCode.OK


def instructions(session: Session) -> ExitCode:
    """List the catalogue, or show one instruction."""
    with session.client() as client:
        if session.words.name:
            one = client.get(f"/v1/instructions/{session.words.name}")
            if session.json:
                session.print_json(one)
            else:
                tables.instruction(session.out, one)
            return ExitCode.OK
        found = cast(list[Mapping[str, Any]], client.get("/v1/instructions")["data"])
    _listed(session, found, ("number", "name", "band", "tasks", "title"))
    return ExitCode.OK


def _listed(session: Session, found: list[Any], columns: tuple[str, ...], empty: str = "") -> None:
    """A list, or what is said where there is nothing in it."""
    if session.json:
        session.print_json(found)
    elif not found and empty:
        session.say(empty)
    else:
        tables.rows(session.out, found, columns)
