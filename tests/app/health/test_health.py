"""Alive, ready, figures; the catalogue and the document that describes every route."""

from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.health import endpoints
from app.health.checks import Down, check_broker
from app.openapi import OPEN_PATHS, SHARED
from app.storage import S3Storage
from engine.catalogue import CATALOGUE
from tests.app.seeds import seed
from tests.bucket import AwayBucket, stand_in


def test_alive_needs_no_key(service: FastAPI) -> None:
    answer = TestClient(service).get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["x-request-id"].startswith("req_")


def test_the_bare_address_leads_on(service: FastAPI, admin: TestClient) -> None:
    nobody = TestClient(service)
    told = nobody.get("/").json()
    assert told.pop("service") == "fiftytwo"
    assert told.pop("version") == service.version
    assert nobody.get(told["docs"]).headers["content-type"].startswith("text/html")
    assert {path: admin.get(path).status_code for path in told.values()} == dict.fromkeys(told.values(), 200)


def test_ready_names_each_dependency(service: FastAPI, admin: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "check_broker", lambda _url: None)
    ready = TestClient(service).get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["dependencies"].keys() == {"database", "broker", "storage"}

    with service.state.database.session() as session:
        session.execute(text("DROP TABLE keys"))
    unready = admin.get("/readyz")
    assert unready.status_code == 503
    assert "retry-after" in unready.headers
    assert unready.json()["dependencies"]["database"]["status"] == "down"
    assert unready.json()["dependencies"]["storage"]["status"] == "up"


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0", "redis+socket:///nowhere.sock"])
def test_a_broker_that_is_not_there(url: str | None) -> None:
    with pytest.raises(Down):
        check_broker(url)


def test_the_catalogue_is_served_whole(admin: TestClient) -> None:
    listed = admin.get("/v1/instructions").json()["data"]
    assert [one["number"] for one in listed] == sorted(CATALOGUE)
    for one in listed:
        assert admin.get(f"/v1/instructions/{one['number']}").json() == one
        assert admin.get(f"/v1/instructions/{one['name']}").json() == one
    assert admin.get("/v1/instructions/999").status_code == 404
    assert admin.get("/v1/instructions/nonsense").status_code == 404


def test_base_models_are_listed_with_their_task(admin: TestClient) -> None:
    listed = {one["id"]: one for one in admin.get("/v1/models").json()["data"]}
    assert listed["minilm-l6"]["default_for"] == "text_classification"
    assert admin.get("/v1/models/resnet-small").json() == listed["resnet-small"]
    assert admin.get("/v1/models/no/such").status_code == 404


def test_every_route_documents_its_errors_and_its_key(service: FastAPI) -> None:
    document = TestClient(service).get("/openapi.json").json()

    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert {str(status) for status in SHARED} <= operation["responses"].keys()
            assert ("security" in operation) == (path not in OPEN_PATHS)


def test_a_store_that_is_not_reached_is_named(
    service: FastAPI, admin: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = seed(service, tmp_path).artifact[0]
    stand_in(monkeypatch, AwayBucket(EndpointConnectionError(endpoint_url="http://minio:9000")))
    service.state.storage = S3Storage("bucket", "")
    unready = admin.get("/readyz")
    assert unready.status_code == 503
    assert unready.json()["dependencies"]["storage"] == {"status": "down", "detail": "StoreDown"}
    content = admin.get(f"/v1/artifacts/{artifact}/content")
    assert (content.status_code, content.json()["code"]) == (503, "storage_unavailable")
    assert "retry-after" in content.headers
    assert "minio" not in content.text
