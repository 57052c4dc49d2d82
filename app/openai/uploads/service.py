"""The rules of uploads: a file comes in parts, in any order, and is put together once, or its parts go.

Knows no request.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.database import Database
from app.erasure import keep_all, unname
from app.errors import Conflict, NotFound, TooLarge
from app.identity import Identity
from app.ids import new_id
from app.openai.uploads import repository
from app.openai.uploads.schemas import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    MOST_PARTS,
    PENDING,
    UploadComplete,
    UploadCreate,
)
from app.openai_tables.models import Upload, UploadPart
from app.settings import Settings
from app.storage import Storage, Stored
from app.unfit import Unfit, checked, refuse
from engine.errors import Fault

LIFE = timedelta(hours=1)
GRACE = timedelta(hours=1)
"""How long the parts stay past the upload's time: it may have ended while they are put together and checked."""
SPARE_FACTOR = 2
"""How many times its announced size the parts of an upload may have, as some may be sent anew."""


def wanted(settings: Settings, body: UploadCreate | Unfit[UploadCreate]) -> UploadCreate:
    """The upload that is asked for.

    Raises:
        TooLarge: it is announced to be larger than what this server takes unpacked, and nothing else is wrong.
        Invalid: with every fault.
    """
    most = settings.max_decompressed_bytes
    large = [Fault("/bytes", "too_large", f"a file may have {most} bytes", "send it as several files")]
    if not isinstance(body, Unfit) and body.bytes > most:
        raise TooLarge(large[0].detail, faults=large)
    return checked(body, lambda sound: large if sound.bytes > most else [])


def create(session: Session, identity: Identity, body: UploadCreate) -> Upload:
    """Write down that a file will come in parts."""
    now = datetime.now(UTC)
    upload = Upload(
        id=new_id("upload"),
        tenant=identity.tenant,
        purpose=body.purpose,
        filename=body.filename,
        size_bytes=body.bytes,
        keep_seconds=body.expires_after.seconds if body.expires_after is not None else None,
        status=PENDING,
        file_id=None,
        created_at=now,
        expires_at=now + LIFE,
    )
    session.add(upload)
    session.flush()
    audit(session, identity, "upload.create", upload.id, {"bytes": body.bytes})
    return upload


def find(session: Session, tenant: str, upload_id: str, *, hold: bool = False) -> Upload:
    """The tenant's upload, or NotFound."""
    upload = repository.find(session, tenant, upload_id, hold=hold)
    if upload is None:
        raise NotFound(f"no upload {upload_id}", remedy="POST /v1/uploads makes one")
    return upload


def pending(session: Session, tenant: str, upload_id: str, *, hold: bool = False, late: bool = False) -> Upload:
    """The tenant's upload while it takes parts; with `late` also past its time, until that is written down.

    Raises:
        Conflict: it is complete, cancelled or expired.
    """
    upload = find(session, tenant, upload_id, hold=hold)
    status = upload.status
    if status == PENDING and not late and upload.expires_at <= datetime.now(UTC):
        status = EXPIRED
    if status != PENDING:
        raise Conflict(f"the upload is {status}", code="wrong_state", remedy="POST /v1/uploads begins another")
    return upload


def refuse_beyond(session: Session, upload: Upload, size_bytes: int) -> None:
    """Refuse a part with which an upload would have far more than was announced; raises TooLarge."""
    number, before = repository.size(session, upload.id)
    most = SPARE_FACTOR * upload.size_bytes
    if number >= MOST_PARTS or before + size_bytes > most:
        raise TooLarge(
            f"the parts of this upload may be {MOST_PARTS} and have {most} bytes together",
            remedy="cancel it, and begin another with the size that it will have",
        )


def add_part(session: Session, identity: Identity, upload_id: str, part_id: str, stored: Stored) -> UploadPart:
    """Write a part down whose bytes were stored for `part_id`."""
    upload = pending(session, identity.tenant, upload_id, hold=True)
    refuse_beyond(session, upload, stored.size_bytes)
    keep_all(session, part_id, [stored.key])
    part = UploadPart(
        id=part_id,
        upload_id=upload.id,
        tenant=identity.tenant,
        size_bytes=stored.size_bytes,
        storage_key=stored.key,
        created_at=datetime.now(UTC),
    )
    session.add(part)
    audit(session, identity, "upload.part", upload.id, {"part": part_id, "sha256": stored.sha256})
    session.flush()
    return part


def put_together(
    database: Database,
    storage: Storage,
    tenant: str,
    upload_id: str,
    asked: UploadComplete | Unfit[UploadComplete],
    to: Path,
) -> None:
    """Write the parts one after the other to the path `to`.

    Raises:
        Invalid: a part is not of this upload, or they do not come to the file that was announced.
    """
    with database.reading() as session:
        upload = pending(session, tenant, upload_id, late=True)
        parts = repository.parts(session, tenant, upload_id)
    body = checked(asked, lambda sound: _part_faults(upload, parts, sound.part_ids, whole=sound is asked))
    # What the parts come to can be told of the right ones only.
    digest = hashlib.md5(usedforsecurity=False)
    with to.open("wb") as target:
        for part in (parts[part_id] for part_id in body.part_ids):
            for chunk in storage.open(part.storage_key, 0, part.size_bytes):
                digest.update(chunk)
                target.write(chunk)
    if body.md5 is not None and digest.hexdigest() != body.md5.lower():
        detail = f"the md5 of the parts is {digest.hexdigest()}, not {body.md5}"
        refuse([Fault("/md5", "wrong_md5", detail, "look at the order of the parts, or send them again")])


def _part_faults(upload: Upload, parts: dict[str, UploadPart], wanted: Sequence[str], *, whole: bool) -> list[Fault]:
    """What is wrong with the parts that are named; `whole`: these are all of them."""
    faults = [
        Fault(f"/part_ids/{place}", "unknown_part", f"{part_id} is no part of this upload", "name parts of it alone")
        for place, part_id in enumerate(wanted)
        if part_id not in parts
    ]
    if len(set(wanted)) < len(wanted):
        faults.append(Fault("/part_ids", "part_twice", "a part is named more than once", "name each once"))
    size = sum(parts[part_id].size_bytes for part_id in wanted if part_id in parts)
    if whole and not faults and size != upload.size_bytes:
        detail = f"the parts have {size} bytes together, and {upload.size_bytes} were announced"
        faults.append(Fault("/part_ids", "wrong_size", detail, "name every part, or begin an upload of this size"))
    return faults


def complete(session: Session, identity: Identity, upload_id: str, file_id: str) -> tuple[Upload, list[str]]:
    """Write down which file an upload became; the keys of its parts are to be erased once this is committed."""
    # To check the file may have taken past the upload's time, which was not over when it began.
    upload = pending(session, identity.tenant, upload_id, hold=True, late=True)
    upload.status, upload.file_id = COMPLETED, file_id
    audit(session, identity, "upload.complete", upload.id, {"file": file_id})
    return upload, _drop(session, upload)


def cancel(session: Session, identity: Identity, upload_id: str) -> tuple[Upload, list[str]]:
    """Take no more parts; the keys of those that came are to be erased once this is committed."""
    upload = pending(session, identity.tenant, upload_id, hold=True)
    upload.status = CANCELLED
    audit(session, identity, "upload.cancel", upload.id)
    return upload, _drop(session, upload)


def expire(session: Session) -> list[str]:
    """Write down which uploads' time and grace have gone by; the keys of their parts, to be erased after the commit."""
    keys = []
    for upload in repository.expired(session, datetime.now(UTC) - GRACE):
        upload.status = EXPIRED
        keys += _drop(session, upload)
    return keys


def _drop(session: Session, upload: Upload) -> list[str]:
    keys = repository.drop_parts(session, upload.id)
    unname(session, keys)
    return keys
