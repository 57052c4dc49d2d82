"""Artifacts over HTTP: metadata, and bytes whole, by range, resumed, or not sent again."""

import base64
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.artifacts.models import Artifact
from app.ids import new_id

CONTENT = os.urandom(2_500_000)
Clients = Callable[..., TestClient]


@pytest.fixture
def artifact(service: FastAPI, tmp_path: Path) -> str:
    """The id of a stored artifact."""
    (tmp_path / "model.zip").write_bytes(CONTENT)
    stored = service.state.storage.save(tmp_path / "model.zip")
    made = Artifact(
        id=new_id("art"),
        tenant="default",
        job_id=new_id("job"),
        attempt=1,
        kind="model",
        filename="model.zip",
        media_type="application/zip",
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        storage_key=stored.key,
        created_at=datetime.now(UTC),
    )
    with service.state.database.session() as session:
        session.add(made)
    return made.id


def test_what_it_is(admin: TestClient, artifact: str) -> None:
    found = admin.get(f"/v1/artifacts/{artifact}").json()

    assert (found["object"], found["kind"], found["filename"], found["size_bytes"]) == (
        "artifact",
        "model",
        "model.zip",
        len(CONTENT),
    )
    assert found["url"] == f"/v1/artifacts/{artifact}/content"
    assert [model["id"] for model in admin.get("/v1/models").json()["data"]][-1] == artifact
    assert admin.get(f"/v1/models/{artifact}").json()["job"] == found["job"]


def test_the_whole(admin: TestClient, artifact: str) -> None:
    answer = admin.get(f"/v1/artifacts/{artifact}/content")
    digest = hashlib.sha256(CONTENT)

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert answer.headers["content-disposition"] == 'attachment; filename="model.zip"'
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize("start", [0, 1, 1_048_575, 1_048_576, 2_499_999])
def test_from_some_byte_on(admin: TestClient, artifact: str, start: int) -> None:
    answer = admin.get(f"/v1/artifacts/{artifact}/content", headers={"Range": f"bytes={start}-"})

    assert (answer.status_code, answer.content) == (206, CONTENT[start:])
    assert answer.headers["content-range"] == f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"


def test_a_range_past_the_end(admin: TestClient, artifact: str) -> None:
    answer = admin.get(f"/v1/artifacts/{artifact}/content", headers={"Range": f"bytes={len(CONTENT)}-"})

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_resume_is_only_of_the_same_file(admin: TestClient, artifact: str) -> None:
    path = f"/v1/artifacts/{artifact}/content"
    etag = admin.head(path).headers.get("etag") or admin.get(path).headers["etag"]

    assert admin.get(path, headers={"Range": "bytes=5-", "If-Range": etag}).status_code == 206
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert admin.get(path, headers={"Range": "bytes=5-", "If-Range": other}).status_code == 200


def test_what_is_known_is_not_sent_again(admin: TestClient, artifact: str) -> None:
    path = f"/v1/artifacts/{artifact}/content"
    answer = admin.get(path, headers={"If-None-Match": admin.get(path).headers["etag"]})
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_file_that_is_gone_is_no_failure_of_the_service(service: FastAPI, admin: TestClient, artifact: str) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    service.state.storage.delete(f"sha256/{digest[:2]}/{digest}")
    assert admin.get(f"/v1/artifacts/{artifact}/content").status_code == 404


def test_a_stranger_sees_nothing(client_for: Clients, artifact: str) -> None:
    stranger = client_for("other", "admin")
    for path in (f"/v1/artifacts/{artifact}", f"/v1/artifacts/{artifact}/content", f"/v1/models/{artifact}"):
        assert stranger.get(path).status_code == 404
