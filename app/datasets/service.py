"""The rules of data sets: a file is checked, stored and written down, or nothing of it stays. Knows no requests."""

import base64
import difflib
import itertools
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow.parquet as pq
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.datasets import repository
from app.datasets.models import Dataset
from app.datasets.schemas import DatasetCreate
from app.datasets.upload import Form
from app.erasure import keep_all, unname
from app.errors import Conflict, NotFound
from app.identity import Identity
from app.incoming import at_hand
from app.schemas import plain
from app.storage import Storage, Stored
from app.unfit import refuse
from engine.errors import Fault
from engine.faults import from_validation

MOST_SHOWN_CHARACTERS = 4_000
MOST_SHOWN_BYTES = 200_000
"""Of one text, and of one picture, in a preview."""
_BUFFER_BYTES = 1 << 20

# Ids of a tenant's jobs that have not ended and read a data set.
Readers = Callable[[Session, str, str], Sequence[str]]


class Content(Protocol):
    """What the rows of an upload tell of themselves, to be known again."""

    groups: int | None
    grouping: str | None

    def place(self, session: Session, tenant: str, sha256: str) -> tuple[str, bool]:
        """The lineage of the rows, and whether it has a privacy budget."""


def wanted(form: Form) -> DatasetCreate:
    """The form's fields, checked; raises Invalid with every fault of the form."""
    faults = list(form.faults)
    if form.filename is None:
        faults.append(Fault("/file", "missing", "the form has no part `file`", "send the file as the part `file`"))
    known = [*DatasetCreate.model_fields, "file"]
    for name in form.fields.keys() - set(known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else f"leave it out; known are {', '.join(sorted(known))}"
        faults.append(Fault(f"/{name[:80]}", "unknown_field", f"there is no field {name[:80]!r} here", remedy))
    fields = {name: value for name, value in form.fields.items() if name in known}
    if "max_invalid_fraction" in fields and fields.get("invalid_rows") != "skip":
        detail = "max_invalid_fraction without invalid_rows=skip has no effect"
        faults.append(Fault("/max_invalid_fraction", "not_applicable", detail, "send invalid_rows=skip as well"))
    try:
        found = DatasetCreate.model_validate(fields)
    except ValidationError as error:
        refuse([*faults, *from_validation(error, DatasetCreate)])
        raise
    refuse(faults)
    return found if found.name else found.model_copy(update={"name": _name(form.filename or "")})


def readable(form: Form) -> DatasetCreate | None:
    """What the rows of a form with faults are to be read as; None where the faults leave that open."""
    apart = {"name", "nominal_rows"}  # of which the check of the rows knows nothing
    fields = {name: value for name, value in form.fields.items() if name not in apart}
    undecided = "max_invalid_fraction" in fields and fields.get("invalid_rows") != "skip"
    if form.faults or form.filename is None or undecided:
        return None
    try:
        return DatasetCreate.model_validate(fields)
    except ValidationError:
        return None


def _name(filename: str) -> str | None:
    """What a file is called, less folders and all that a line cannot show; None where nothing is left."""
    return plain("".join(one for one in re.split(r"[/\\]", filename)[-1] if one.isprintable())) or None


def add(
    session: Session,
    identity: Identity,
    dataset_id: str,
    fields: DatasetCreate,
    report: dict[str, Any],
    stored: Stored,
    content: Content,
) -> Dataset:
    """Write the data set down; its file was stored for `dataset_id`."""
    keep_all(session, dataset_id, [stored.key])
    lineage, budgeted = content.place(session, identity.tenant, stored.sha256)
    dataset = Dataset(
        id=dataset_id,
        tenant=identity.tenant,
        name=fields.name,
        task=fields.task,
        status="ready",
        rows=report["rows"],
        nominal_rows=fields.nominal_rows,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        splits=report["splits"],
        columns=report["columns"],
        labels=report["labels"],
        label_counts=report["label_counts"],
        problems=report["skipped"],
        storage_key=stored.key,
        groups=content.groups,
        grouping=content.grouping,
        lineage=lineage,
        budgeted=budgeted,
        created_at=datetime.now(UTC),
    )
    session.add(dataset)
    session.flush()
    audit(session, identity, "dataset.create", dataset.id, {"rows": dataset.rows, "sha256": dataset.sha256})
    return dataset


def find(session: Session, identity: Identity, dataset_id: str) -> Dataset:
    """The caller's data set with this id, or NotFound."""
    return _there(repository.find(session, identity.tenant, dataset_id), dataset_id)


def _there(dataset: Dataset | None, dataset_id: str) -> Dataset:
    if dataset is None:
        raise NotFound(f"no data set {dataset_id}", remedy="GET /v1/datasets lists yours")
    return dataset


def delete(session: Session, identity: Identity, readers: Readers, dataset_id: str) -> str:
    """Delete the data set; Conflict while one of its `readers` has not ended.

    Returns:
        The key of its file, which is to be erased once this is committed.
    """
    # Held before the readers are counted, or a job that is being stored just now would lose its rows.
    dataset = _there(repository.seize(session, identity.tenant, dataset_id), dataset_id)
    if jobs := readers(session, identity.tenant, dataset_id):
        detail = f"{len(jobs)} jobs that have not ended need this data set: {', '.join(jobs[:10])}"
        raise Conflict(detail, code="dataset_in_use", remedy="cancel them, or wait for their end")
    session.delete(dataset)
    audit(session, identity, "dataset.delete", dataset.id, {"sha256": dataset.sha256})
    unname(session, [dataset.storage_key])
    return dataset.storage_key


def preview(dataset: Dataset, storage: Storage, rows: int) -> list[dict[str, Any]]:
    """The first rows as the training will see them, the class by name beside its index.

    A long text is cut and a large picture left out; `cut` of the row names such fields.
    """
    with (
        at_hand(storage, dataset.storage_key, "rows.parquet") as path,
        pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file,
    ):
        # One row at a time: a hundred of them may be as large as the largest upload.
        batches = itertools.islice(file.iter_batches(1, use_threads=False), rows)
        return [_shown(batch.to_pylist()[0], dataset.labels) for batch in batches]


def _shown(row: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    cut = []
    for name, value in row.items():
        if isinstance(value, str) and len(value) > MOST_SHOWN_CHARACTERS:
            row[name] = value[:MOST_SHOWN_CHARACTERS]
            cut.append(name)
        elif isinstance(value, bytes):
            fits = len(value) <= MOST_SHOWN_BYTES
            row[name] = base64.b64encode(value).decode() if fits else None
            cut += [] if fits else [name]
    if "label" in row:
        row["label_name"] = labels[row["label"]]
    whole = {name: value for name, value in row.items() if not _nan(value)}
    return whole | ({"cut": cut} if cut else {})


def _nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
