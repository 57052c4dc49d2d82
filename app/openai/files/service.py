"""The rules of files: one is checked, stored and written down with its rows, or nothing of it stays."""

import difflib
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.auth.audit import audit
from app.database import Database
from app.datasets import service as datasets
from app.datasets.upload import Form
from app.erasure import keep_all, storing, unname
from app.errors import NotFound, Unparsable
from app.idempotency import Claim
from app.identity import Identity
from app.ids import new_id
from app.openai.files import repository
from app.openai.files.reading import Rows, Unfitting, read, task_of
from app.openai.files.schemas import TRAINED_ON, FileCreate, told
from app.openai_tables.models import File, FileDataset
from app.schemas import plain
from app.settings import Settings
from app.storage import Storage, Stored
from app.unfit import refuse
from engine.errors import Fault
from engine.faults import from_validation

_EXPIRES = re.compile(r"expires_after\[(\w+)\]")


@dataclass(frozen=True)
class Place:
    """Where files are put: the parts of the service that it takes."""

    settings: Settings
    database: Database
    storage: Storage
    content: Callable[[Path], datasets.Content]


@dataclass(frozen=True)
class NewFile:
    """A file that has come whole, at `path`."""

    path: Path
    filename: str
    wanted: FileCreate


def wanted(form: Form) -> FileCreate:
    """The form's fields, checked; raises Invalid with every fault of the form."""
    faults = list(form.faults)
    if form.filename is None:
        faults.append(Fault("/file", "missing", "the form has no part `file`", "send the file as the part `file`"))
    fields: dict[str, Any] = {}
    for name, value in form.fields.items():
        if inner := _EXPIRES.fullmatch(name):
            fields.setdefault("expires_after", {})[inner[1]] = value
        elif name in FileCreate.model_fields and name != "expires_after":
            fields[name] = value
        else:
            known = ["file", "purpose", "expires_after[anchor]", "expires_after[seconds]"]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]}?" if near else f"leave it out; known are {', '.join(known)}"
            faults.append(Fault(f"/{name[:80]}", "unknown_field", f"there is no field {name[:80]!r} here", remedy))
    try:
        found = FileCreate.model_validate(fields)
    except ValidationError as error:
        refuse([*faults, *from_validation(error, FileCreate)])
        raise
    refuse(faults)
    return found


def plain_name(filename: str) -> str:
    """A file's name without signs that a terminal or a log would obey."""
    return plain(filename)[-200:].strip() or "file"


def take(
    place: Place, identity: Identity, new: NewFile, claim: Claim, answered: Callable[[Session, File], Response]
) -> Response:
    """Check, store and write down a file; `answered` makes the answer, in the same transaction.

    Raises:
        Unparsable: it is to be trained on, and holds no rows; each fault names its line.
    """
    with place.database.reading() as session:
        if first := claim.replay(session, identity.tenant):
            return first
    task, rows, problems = checked(place, new)
    file_id, dataset_id = new_id("file"), new_id("ds")
    with ExitStack() as stack:
        stored = stack.enter_context(storing(place.database, place.storage, file_id))(new.path)
        held = None
        if rows is not None:
            held = stack.enter_context(storing(place.database, place.storage, dataset_id))(rows.path)
        with place.database.session() as session:
            if first := claim.begin(session, identity.tenant):
                return first
            keep_all(session, file_id, [stored.key])
            file = _made(identity, new, file_id, stored, task, problems)
            session.add(file)
            audit(session, identity, "file.create", file_id, {"sha256": stored.sha256, "purpose": file.purpose})
            if rows is not None and held is not None:
                add_rows(session, identity, file_id, dataset_id, rows, held)
            session.flush()
            return claim.finish(session, identity.tenant, answered(session, file))


def checked(place: Place, new: NewFile) -> tuple[str | None, Rows | None, list[dict[str, Any]]]:
    """The task of a file to train on, its rows, and what is wrong with them."""
    if new.path.stat().st_size == 0:
        detail = "the file is empty"
        raise Unparsable(detail, faults=[Fault("/file", "no_rows", detail, "send a file with rows")])
    if new.wanted.purpose != TRAINED_ON:
        return None, None, []
    task = task_of(new.path, new.filename)
    try:
        return task, read(new.path, new.filename, task, place.settings, place.content), []
    except Unfitting as error:
        if error.readable:
            return task, None, [vars(fault) for fault in error.faults]
        raise Unparsable(
            f"the file cannot be used: {told(error.faults)}",
            code="invalid_data",
            remedy="mend every fault, and send one JSON object a line",
            faults=error.faults,
        ) from error


def _made(
    identity: Identity, new: NewFile, file_id: str, stored: Stored, task: str | None, problems: list[dict[str, Any]]
) -> File:
    now, expires = datetime.now(UTC), new.wanted.expires_after
    return File(
        id=file_id,
        tenant=identity.tenant,
        purpose=new.wanted.purpose,
        filename=new.filename,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        storage_key=stored.key,
        task=task,
        problems=problems,
        created_at=now,
        expires_at=now + timedelta(seconds=expires.seconds) if expires is not None else None,
    )


def add_rows(session: Session, identity: Identity, file_id: str, dataset_id: str, rows: Rows, stored: Stored) -> None:
    """Write down the data set that was read from a file; its rows were stored for `dataset_id`."""
    datasets.add(session, identity, dataset_id, rows.fields, rows.report, stored, rows.content)
    session.add(FileDataset(dataset_id=dataset_id, file_id=file_id, tenant=identity.tenant, task=rows.fields.task))


def find(session: Session, tenant: str, file_id: str) -> File:
    """The tenant's file with this id, or NotFound."""
    file = repository.find(session, tenant, file_id)
    if file is None:
        raise NotFound(f"no file {file_id}", remedy="GET /v1/files lists yours")
    return file


def delete(session: Session, identity: Identity, readers: datasets.Readers, file: File) -> Sequence[str]:
    """Delete a file and the data sets that were read from it; Conflict while a job that has not ended reads one.

    Returns:
        The keys of their bytes, which are to be erased once this is committed.
    """
    read_from = repository.all_datasets(session, identity.tenant, file.id)
    keys = [datasets.delete(session, identity, readers, dataset_id) for dataset_id in read_from]
    session.delete(file)
    audit(session, identity, "file.delete", file.id, {"sha256": file.sha256})
    unname(session, [file.storage_key])
    return [*keys, file.storage_key]
