"""Uploads in parts through the real client: together in the order that is named, or refused, cancelled, expired."""

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from app.jobs.repository import open_jobs_reading
from app.openai.expiry import expiring, sweep
from app.openai.uploads import service as uploads
from app.openai_tables.models import Upload, UploadPart
from tests.app.openai.conftest import GOOD, MakeClient

HALVES = GOOD[:100], GOOD[100:]


def begun(client: openai.OpenAI, size: int = len(GOOD), purpose: str = "fine-tune") -> str:
    upload = client.uploads.create(
        bytes=size,
        filename="chat.jsonl",
        mime_type="application/jsonl",
        purpose=purpose,  # type: ignore[arg-type]
    )
    assert (upload.object, upload.bytes, upload.status, upload.file) == ("upload", size, "pending", None)
    assert upload.expires_at - upload.created_at in (3600, 3601)
    return upload.id


def parts_left(service: FastAPI) -> list[str]:
    with service.state.database.reading() as session:
        return list(session.scalars(select(UploadPart.storage_key)))


def test_a_path_goes_up_in_parts_as_the_client_cuts_it(client: openai.OpenAI, service: FastAPI, tmp_path: Path) -> None:
    source = tmp_path / "chat.jsonl"
    source.write_bytes(GOOD)
    md5 = hashlib.md5(GOOD).hexdigest()
    done = client.uploads.upload_file_chunked(
        file=source, mime_type="application/jsonl", purpose="fine-tune", part_size=len(GOOD) // 3, md5=md5
    )
    assert (done.status, done.filename) == ("completed", "chat.jsonl")
    assert done.file is not None
    assert (done.file.status, done.file.bytes) == ("processed", len(GOOD))
    assert client.files.retrieve(done.file.id) == done.file
    assert client.files.content(done.file.id).content == GOOD
    assert parts_left(service) == []


def test_parts_come_in_any_order_and_what_is_wrong_leaves_the_upload_pending(
    client: openai.OpenAI, service: FastAPI
) -> None:
    upload = begun(client)
    second = client.uploads.parts.create(upload, data=HALVES[1])
    first = client.uploads.parts.create(upload, data=HALVES[0])
    assert (first.object, first.upload_id) == ("upload.part", upload)
    elsewhere = client.uploads.parts.create(begun(client), data=b"x")
    md5 = hashlib.md5(GOOD).hexdigest()
    for ids, code, told in (
        ([second.id, first.id], "wrong_md5", "the md5 of the parts is"),
        ([first.id], "wrong_size", f"and {len(GOOD)} were announced"),
        ([first.id, first.id], "part_twice", "more than once"),
        ([first.id, elsewhere.id], "unknown_part", f"{elsewhere.id} is no part of this upload"),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=told) as caught:
            client.uploads.complete(upload, part_ids=ids, md5=md5)
        assert [one["code"] for one in caught.value.response.json()["errors"]] == [code]
    with pytest.raises(openai.BadRequestError, match="line 1: "):  # the halves the wrong way round are no JSONL
        client.uploads.complete(upload, part_ids=[second.id, first.id])
    done = client.uploads.complete(upload, part_ids=[first.id, second.id], md5=md5.upper())
    assert done.file is not None
    assert client.files.content(done.file.id).content == GOOD
    with pytest.raises(openai.ConflictError, match="the upload is completed"):
        client.uploads.parts.create(upload, data=b"more")


def test_a_cancelled_upload_takes_nothing_and_keeps_nothing(client: openai.OpenAI, service: FastAPI) -> None:
    upload = begun(client)
    part = client.uploads.parts.create(upload, data=b"of a cancelled upload")
    (key,) = [key for key in parts_left(service) if hashlib.sha256(b"of a cancelled upload").hexdigest() in key]
    assert client.uploads.cancel(upload).status == "cancelled"
    assert key not in parts_left(service)
    assert not service.state.storage.has(key)
    for late in (
        lambda: client.uploads.parts.create(upload, data=b"late"),
        lambda: client.uploads.complete(upload, part_ids=[part.id]),
        lambda: client.uploads.cancel(upload),
    ):
        with pytest.raises(openai.ConflictError, match="the upload is cancelled"):
            late()


def test_an_upload_expires_with_its_parts(client: openai.OpenAI, service: FastAPI) -> None:
    upload, state = begun(client), service.state
    part = client.uploads.parts.create(upload, data=b"of an expired upload")
    with state.database.session() as session:
        past = datetime.now(UTC) - uploads.GRACE
        session.execute(update(Upload).where(Upload.id == upload).values(expires_at=past))
    with pytest.raises(openai.ConflictError, match="the upload is expired"):
        client.uploads.complete(upload, part_ids=[part.id])
    sweep(state.database, state.storage, open_jobs_reading)
    key = hashlib.sha256(b"of an expired upload").hexdigest()
    assert not any(key in one for one in parts_left(service))
    assert not state.storage.has(f"sha256/{key[:2]}/{key}")
    with state.database.reading() as session:
        assert session.scalar(select(Upload.status).where(Upload.id == upload)) == "expired"


def test_a_running_service_sweeps_by_itself(
    client: openai.OpenAI, service: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, state = begun(client), service.state
    with state.database.session() as session:
        past = datetime.now(UTC) - uploads.GRACE
        session.execute(update(Upload).where(Upload.id == upload).values(expires_at=past))
    monkeypatch.setattr("app.openai.expiry.EVERY_SECONDS", 0.01)

    async def swept() -> bool:
        async with expiring(state.database, state.storage, open_jobs_reading):
            for _ in range(1000):
                await asyncio.sleep(0.01)
                with state.database.reading() as session:
                    if session.scalar(select(Upload.status).where(Upload.id == upload)) == "expired":
                        return True
        return False

    assert asyncio.run(swept())


def test_an_upload_whose_time_ends_while_it_is_put_together_is_whole(
    client: openai.OpenAI, service: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begun(client, 4, "user_data")
    part = client.uploads.parts.create(upload, data=b"note")
    together, state = uploads.put_together, service.state

    def slowly(*what: Any) -> None:
        with state.database.session() as session:
            session.execute(update(Upload).where(Upload.id == upload).values(expires_at=datetime.now(UTC)))
        sweep(state.database, state.storage, open_jobs_reading)
        together(*what)

    monkeypatch.setattr(uploads, "put_together", slowly)
    assert client.uploads.complete(upload, part_ids=[part.id]).status == "completed"


def test_sizes_are_bounded_before_and_while_the_parts_come(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="a file may have 1000000 bytes") as caught:
        begun(client, 1_000_001)
    assert (caught.value.status_code, caught.value.param) == (413, "bytes")
    upload = begun(client, 100_000, "user_data")
    for _ in range(2):
        client.uploads.parts.create(upload, data=bytes(90_000))
    with pytest.raises(openai.APIStatusError, match="have 200000 bytes together") as caught:
        client.uploads.parts.create(upload, data=bytes(90_000))
    assert caught.value.status_code == 413
    with pytest.raises(openai.APIStatusError, match="more than 200000 bytes"):
        client.uploads.parts.create(upload, data=bytes(200_001))
    with pytest.raises(openai.UnprocessableEntityError, match="no bytes in `data`"):
        client.uploads.parts.create(upload, data=b"")


def test_an_upload_of_another_tenant_is_not_there(client: openai.OpenAI, client_for: MakeClient) -> None:
    upload, stranger = begun(client), client_for("stranger", "admin")
    for reach in (
        lambda: stranger.uploads.parts.create(upload, data=b"x"),
        lambda: stranger.uploads.complete(upload, part_ids=["part_1"]),
        lambda: stranger.uploads.cancel(upload),
    ):
        with pytest.raises(openai.NotFoundError):
            reach()
    assert client.uploads.cancel(upload).status == "cancelled"
