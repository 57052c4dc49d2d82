"""From the files of a fine-tuning job to data sets: those that were read from them, or are read from them now."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

from app.datasets.schemas import Task
from app.erasure import storing
from app.errors import TooLarge
from app.identity import Identity
from app.ids import new_id
from app.incoming import landing
from app.openai.files import repository as files
from app.openai.files.reading import Unfitting, read
from app.openai.files.schemas import TRAINED_ON, faults_of
from app.openai.files.service import Place, add_rows
from app.openai.fine_tuning.requests import FineTuningCreate
from app.openai_tables.models import File
from engine.errors import Fault
from engine.tasks import TASKS


def datasets_of(
    place: Place, identity: Identity, body: FineTuningCreate, task: str | None
) -> tuple[dict[str, str], list[Fault]]:
    """The data set of each file by its pointer, and what is wrong with the others; without a task a file's own id."""
    found: dict[str, str] = {}
    faults: list[Fault] = []
    wanted = (("/training_file", body.training_file), ("/validation_file", body.validation_file))
    for pointer, file_id in wanted:
        if file_id is None:
            continue
        one = file_id if file_id.startswith("ds_") else _dataset(place, identity, file_id, task)
        if isinstance(one, str):
            found[pointer] = one
        else:
            faults += [replace(fault, pointer=pointer) for fault in one]
    if len(found) > len(set(found.values())):
        detail = "validation_file holds the rows of training_file, and a score on these says nothing"
        faults.append(Fault("/validation_file", "same_rows", detail, "leave it out, or send other rows"))
    return found, faults


def _dataset(place: Place, identity: Identity, file_id: str, task: str | None) -> str | Sequence[Fault]:
    """The data set of a file's rows for this task, read from it now if need be; else why there is none."""
    with place.database.reading() as session:
        file = files.find(session, identity.tenant, file_id)
        if file is None:
            remedy = "GET /v1/files lists yours; upload one with the purpose fine-tune"
            return [Fault("", "unknown_file", f"there is no file {file_id}", remedy)]
        known = files.datasets(session, identity.tenant, [file_id])[file_id]
    if file.purpose != TRAINED_ON:
        detail = f"{file_id} was uploaded with the purpose {file.purpose}"
        return [Fault("", "wrong_purpose", detail, f"upload it with the purpose {TRAINED_ON}")]
    if task is None:
        return file_id
    if task in known:
        return known[task]
    if file.task == task and file.problems:
        return faults_of(file)
    if task not in TASKS:
        return [Fault("", "wrong_task", f"this server does not serve {task}", "choose another base model")]
    try:
        return _read(place, identity, file, cast(Task, task))
    except Unfitting as error:
        return error.faults
    except TooLarge as error:
        return error.faults


def _read(place: Place, identity: Identity, file: File, task: Task) -> str:
    dataset_id = new_id("ds")
    with landing(place.settings.data_dir) as folder, ExitStack() as stack:
        source = folder / "upload"
        place.storage.fetch(file.storage_key, source)
        rows = read(source, file.filename, task, place.settings, place.content)
        stored = stack.enter_context(storing(place.database, place.storage, dataset_id))(rows.path)
        with place.database.session() as session:
            add_rows(session, identity, file.id, dataset_id, rows, stored)
    return dataset_id
