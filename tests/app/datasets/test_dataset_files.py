"""The files of data sets: there as long as one has them, erased then, and nobody waits for a slow store."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.erasure import erase_due
from app.errors import Conflict
from app.settings import Settings
from app.storage import Announce, S3Storage
from tests.app.datasets.uploads import ROWS, stored, upload
from tests.bucket import SlowBucket, stand_in
from tests.service import awaiting_erasure, let_fall_due


def test_a_delete_erases_the_file_once_no_data_set_has_it(admin: TestClient, settings: Settings) -> None:
    one, two = upload(admin).json(), upload(admin, gzip.compress(ROWS)).json()
    assert one["sha256"] == two["sha256"]

    assert admin.delete(f"/v1/datasets/{one['id']}").status_code == 204
    assert len(stored(settings)) == 1
    assert admin.delete(f"/v1/datasets/{two['id']}").status_code == 204
    assert stored(settings) == []
    assert admin.get(f"/v1/datasets/{one['id']}").status_code == 404


def test_a_delete_while_the_same_rows_are_uploaded_leaves_their_file(
    admin: TestClient, service: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = upload(admin).json()
    storage = service.state.storage
    save = storage.save

    def save_and_lose(path: Path, announce: Announce) -> Any:
        kept = save(path, announce)
        assert admin.delete(f"/v1/datasets/{one['id']}").status_code == 204
        return kept

    monkeypatch.setattr(storage, "save", save_and_lose)
    two = upload(admin).json()
    assert len(stored(settings)) == 1
    assert admin.get(f"/v1/datasets/{two['id']}/preview").status_code == 200
    assert awaiting_erasure(service.state.database) == {f"sha256/{two['sha256'][:2]}/{two['sha256']}"}
    erase_due(service.state.database, storage)
    assert len(stored(settings)) == 1, "it is named again"
    assert awaiting_erasure(service.state.database) == set()


def test_an_upload_that_is_not_written_down_leaves_no_file(
    admin: TestClient, service: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Conflict("not now")

    monkeypatch.setattr("app.datasets.service.audit", refuse)
    assert upload(admin).status_code == 409
    assert stored(settings) == []
    assert awaiting_erasure(service.state.database) == set()


def test_nobody_waits_for_a_slow_store(
    admin: TestClient, service: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = stand_in(monkeypatch, SlowBucket(settings.data_dir / "fiftytwo.db"))
    service.state.storage = S3Storage("bucket", "")
    made = upload(admin).json()
    assert admin.delete(f"/v1/datasets/{made['id']}").status_code == 204
    assert bucket.objects == {}
    assert {"upload_file", "delete_object"} <= set(bucket.calls)
    assert bucket.in_the_way == []


def test_a_data_set_is_deleted_though_its_file_cannot_be_erased_yet(
    admin: TestClient, service: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload(admin).json()
    storage = service.state.storage

    def refuse(_key: str) -> None:
        raise OSError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", refuse)
        assert admin.delete(f"/v1/datasets/{made['id']}").status_code == 204
    assert admin.get(f"/v1/datasets/{made['id']}").status_code == 404
    assert len(stored(settings)) == 1
    let_fall_due(service.state.database)
    erase_due(service.state.database, storage)
    assert stored(settings) == []
