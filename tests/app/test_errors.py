"""Whatever goes wrong is a problem with every fault, never a traceback; and the lists of errors are complete."""

import errno
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import DataError, OperationalError

from app import errors
from app.errors import ENGINE_STATUSES, ServiceError
from app.openapi import SHARED
from engine.errors import EngineError, InvalidPlan

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "remedy", "errors", "error"}


def kinds(base: type[Any]) -> Iterator[type[Any]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_the_tree_in_the_docstring_is_complete() -> None:
    drawn = errors.__doc__ or ""
    for kind in kinds(ServiceError):
        assert f"{kind.__name__} ({kind.status})" in drawn


def test_every_error_is_documented() -> None:
    assert {kind.status for kind in kinds(ServiceError)} - {405, 412, 416} <= set(SHARED)
    assert all(issubclass(kind, EngineError) for kind in ENGINE_STATUSES)


def test_every_error_says_what_it_is() -> None:
    for kind in kinds(ServiceError):
        assert inspect.getdoc(kind), kind
        assert kind.title != ServiceError.title, kind
        assert kind.code != ServiceError.code, kind


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("PATCH", "/v1/keys", {}, 405),
        ("POST", "/v1/keys", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/v1/keys", {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/v1/keys", {"content": b"9" * 5_000, "headers": {"Content-Type": "application/json"}}, 400),
        ("GET", "/v1/keys/", {}, 404),
        ("POST", "/v1/keys", {"content": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 400),
        ("POST", "/v1/keys", {"content": b"name=x", "headers": {"Content-Type": "text/plain"}}, 415),
        ("POST", "/v1/keys", {"content": b"name=x"}, 415),
        ("POST", "/v1/keys", {}, 422),
        ("POST", "/v1/keys", {"json": []}, 422),
        ("POST", "/v1/keys", {"json": {"name": "a\0b"}}, 422),
        ("POST", "/v1/keys", {"content": b"[" * 5_000_000, "headers": {"Content-Type": "application/json"}}, 413),
        ("POST", "/nothing", {"content": b"x" * 50_000_000}, 413),
        ("GET", "/v1/keys?limit=0", {}, 422),
        ("GET", "/v1/keys?limit=201", {}, 422),
        ("GET", "/v1/keys?order=up", {}, 422),
        ("GET", "/v1/keys?ordre=asc", {}, 422),
        ("GET", "/v1/keys?after=%00", {}, 400),
        ("GET", "/v1/keys/%00", {}, 400),
        ("GET", "/v1/keys/key_unknown", {}, 404),
        ("POST", "/v1/keys", {"json": {"name": "x"}, "headers": {"Idempotency-Key": ""}}, 422),
    ],
)
def test_bad_requests_are_problems(
    admin: TestClient, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    answer = admin.request(method, path, **options)
    if "Idempotency-Key" in options.get("headers", {}):
        assert answer.json()["errors"][0]["remedy"].startswith("mend the header")

    assert answer.status_code == status
    assert answer.headers["content-type"] == errors.MEDIA_TYPE
    assert answer.json().keys() == MEMBERS
    assert answer.json()["status"] == status
    faults = answer.json()["errors"]
    assert faults
    assert all(fault["code"] and fault["detail"] and fault["remedy"] for fault in faults), faults
    assert answer.json()["instance"] == answer.headers["x-request-id"]
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert admin.get("/v1/keys").status_code == 200


def test_a_wrong_method_names_the_right_ones(admin: TestClient) -> None:
    assert set(admin.patch("/v1/keys").headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("a secret reason"), 500),
        (InvalidPlan([]), 422),
        (EngineError("broken"), 500),
        (OperationalError("select", {}, Exception("a secret reason")), 503),
        (DataError("select", {}, Exception("a secret reason")), 422),
        (OSError(errno.ENOSPC, "a secret reason"), 503),
    ],
)
def test_exceptions_never_show_their_reason(
    service: FastAPI, admin: TestClient, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    @service.get("/breaks")
    def breaks() -> None:
        raise error

    answer = admin.get("/breaks")
    assert answer.status_code == status
    assert answer.json().keys() == MEMBERS
    assert "secret" not in answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [""]
    assert ("retry-after" in answer.headers) == (status == 503)
    assert answer.headers["x-request-id"] in caplog.text or status == 422 or isinstance(error, EngineError)
