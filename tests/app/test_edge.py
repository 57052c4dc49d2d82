"""What holds of every route: a HEAD is its GET without the body, and a body that stops short is not waited for."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.jobs.states import State
from app.settings import Settings
from tests.app.seeds import (
    seed_artifact,
    seed_dataset,
    seed_experiment,
    seed_file,
    seed_job,
    seed_population,
    seed_round,
    seed_webhook,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Little patience with bodies."""
    return Settings(data_dir=tmp_path / "data", requests_per_second=10_000, body_stall_seconds=0.05)


@pytest.fixture
def paths(service: FastAPI, tmp_path: Path) -> Callable[[str], str]:
    """Fills in the ids of things that are there."""
    dataset = seed_dataset(service, tmp_path)
    job = seed_job(service, dataset, state=State.SUCCEEDED)
    model = seed_artifact(service, tmp_path, "default", job, "model", "model.zip")
    ids = {"dataset_id": dataset, "job_id": job, "artifact_id": model, "model_id": model, "choice": "9", "key_id": "x"}
    ids["webhook_id"], _ = seed_webhook(service, job)
    ids |= {"file_id": seed_file(service, tmp_path), "experiment_id": seed_experiment(service, dataset)}
    population = seed_population(service)
    ids |= {"population_id": population, "round_id": seed_round(service, population), "client": "client-1"}
    return lambda path: path.format(**ids)


def test_a_head_is_its_get_without_the_body(service: FastAPI, admin: TestClient, paths: Callable[[str], str]) -> None:
    routes = [path for path, operations in service.openapi()["paths"].items() if "get" in operations]
    assert len(routes) > 15
    for route in routes:
        path = paths(route)
        asked, told = admin.get(path), admin.head(path)
        assert (told.status_code, told.content) == (asked.status_code, b""), path
        changing = {"x-request-id"} | ({"content-length", "etag"} if route in ("/metrics", "/readyz") else set())
        assert {k: v for k, v in told.headers.items() if k not in changing} == {
            k: v for k, v in asked.headers.items() if k not in changing
        }, path
    assert all("head" not in operations for operations in service.openapi()["paths"].values())
    assert (admin.head("/v1/jobs/x/cancel").status_code, admin.head("/nothing").status_code) == (405, 404)


def test_a_head_of_a_download_reads_no_byte_of_it(
    service: FastAPI, admin: TestClient, paths: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def chunks(key: str, start: int, length: int) -> Iterator[bytes]:
        read.append(length)
        yield bytes(length)

    path = paths("/v1/artifacts/{artifact_id}/content")
    size = len(admin.get(path).content)
    monkeypatch.setattr(service.state.storage, "open", chunks)
    told = admin.head(path, headers={"Range": "bytes=1-"})
    assert (told.status_code, told.headers["content-length"]) == (200, str(size)), "a Range is for GET alone"
    assert read == []
    assert admin.get(path).status_code == 200
    assert read == [size]


def test_a_head_of_a_live_stream_ends(admin: TestClient, service: FastAPI, tmp_path: Path) -> None:
    running = seed_job(service, seed_dataset(service, tmp_path), state=State.RUNNING)
    told = admin.head(f"/v1/jobs/{running}/events", headers={"Accept": "text/event-stream"})
    assert (told.status_code, told.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\ntext,label\n'


@pytest.mark.parametrize(
    ("path", "kind", "begun"),
    [
        ("/v1/jobs", "application/json", b'{"task": '),
        ("/v1/jobs", "application/json", b""),
        ("/v1/datasets", "multipart/form-data; boundary=b", FORM),
    ],
)
def test_a_body_that_stops_short_is_not_waited_for(
    service: FastAPI, admin: TestClient, settings: Settings, path: str, kind: str, begun: bytes
) -> None:
    status, headers, body = asyncio.run(_stalled(service, admin.headers["authorization"], path, kind, begun))
    assert (status, headers["content-type"], headers["connection"]) == (408, "application/problem+json", "close")
    assert [(fault["code"], bool(fault["remedy"])) for fault in body["errors"]] == [("body_stalled", True)]
    assert list((settings.data_dir / "incoming").glob("*")) == []


def test_a_file_over_its_cap_that_stalls_is_told_of_the_cap(
    service: FastAPI, admin: TestClient, settings: Settings
) -> None:
    service.state.settings = settings.model_copy(update={"max_upload_bytes": 5})
    kind = "multipart/form-data; boundary=b"
    told = asyncio.run(_stalled(service, admin.headers["authorization"], "/v1/datasets", kind, FORM))
    assert (told[0], told[2]["code"]) == (413, "too_large")


async def _stalled(
    service: FastAPI, key: str, path: str, kind: str, begun: bytes
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body of the answer to a request that sends `begun` and then nothing, nor leaves."""
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": begun, "more_body": True}] if begun else [])

    async def receive() -> Any:
        return next(parts, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(b"authorization", key.encode()), (b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    rest = {"headers": fields, "http_version": "1.1", "scheme": "http", "server": ("t", 80), "client": ("t", 1)}
    async with asyncio.timeout(20):
        await service({**scope, **rest, "root_path": "", "app": service}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(b"".join(part["body"] for part in sent[1:]))
