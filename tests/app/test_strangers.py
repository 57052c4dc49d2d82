"""No route answers another tenant's rows, changes them, or tells that they are there; none answers without a key.

The routes come from the API's own document: one that is new here, or hidden from the document, fails these tests until
somebody has said what its parameters name.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from starlette.routing import Route

from app.dashboard.routing import PanelRoute
from app.database import Base
from app.main import ROUTERS
from app.openapi import METHODS, OPEN_PATHS
from tests.app.seeds import Seeds, seed

Clients = Callable[..., TestClient]
# Which of the tenant's things each path parameter names.
OWNED = {"dataset_id": "dataset", "job_id": "job", "artifact_id": "artifact", "model_id": "artifact", "key_id": "key"}
OWNED |= {"population_id": "population", "round_id": "round", "experiment_id": "experiment"}
OWNED |= {"webhook_id": "webhook", "delivery_id": "delivery", "file_id": "file", "upload_id": "upload"}
# Parameters that name nothing of the service's.
NAMES = {"client": "client-1"}
# What a route with an owned thing in its path wants beside it.
SENT: dict[str, dict[str, Any]] = {
    "/v1/privacy/budgets/{dataset_id}": {"json": {"epsilon": 1.0, "delta": 1e-9}},
    "/v1/experiments/{experiment_id}/ballots": {"json": {"ballot": "bal_A", "choice": "left"}},
    "/v1/experiments/{experiment_id}/raters": {"json": {"name": "Ann"}},
    "/v1/uploads/{upload_id}/complete": {"json": {"part_ids": ["part_1"]}},
}
# Routes whose parameters name what everybody may see.
PUBLIC = {"/v1/instructions/{choice}": "/v1/instructions/1"}
# A body a POST without a path parameter that reaches for `dataset`, or for the tenant itself, and what it gets.
BODIES: dict[str, tuple[int, Callable[[str], dict[str, Any]]]] = {
    "/v1/datasets": (422, lambda _: {"data": {"task": "text_classification"}, "files": {"other": ("a", b"a")}}),
    "/v1/jobs": (422, lambda dataset: {"json": {"task": "text_classification", "dataset": dataset}}),
    "/v1/populations": (422, lambda _: {"json": {"clients": 0, "budget": {"epsilon": 1.0, "delta": 1e-5}}}),
    "/v1/rounds": (
        404,
        lambda it: {"json": {"population": it, "clip_norm": 1.0, "noise_multiplier": 1.0, "expected_clients": 20}},
    ),
    "/v1/experiments": (
        422,
        lambda it: {
            "json": {
                "baseline": {"task": "text_classification", "dataset": it},
                "treatments": [{"name": "edge", "changes": {}}],
            }
        },
    ),
    "/v1/webhooks": (422, lambda _: {"json": {"url": "http://127.0.0.1/"}}),
    "/v1/files": (422, lambda it: {"data": {"purpose": it}, "files": {"file": ("a", b"a")}}),
    "/v1/fine_tuning/jobs": (422, lambda it: {"json": {"model": "minilm-l6", "training_file": it}}),
    "/v1/uploads": (
        422,
        lambda it: {"json": {"bytes": 0, "filename": it, "mime_type": "text/plain", "purpose": "user_data"}},
    ),
    "/v1/keys": (403, lambda _: {"json": {"name": "mine", "tenant": "default"}}),
}
UNDOCUMENTED = {"/openapi.json"}
ADMINS_ONLY = {"/v1/keys", "/v1/keys/{key_id}", "/v1/audit"}
# What is read there is a secret of those who take part in a round.
MEMBERS_ONLY = {"/v1/rounds/{round_id}/cohort/{client}"}


def operations(service: FastAPI) -> list[tuple[str, str]]:
    """Method and path template of everything the document tells of."""
    paths: dict[str, dict[str, Any]] = service.openapi()["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item if method in METHODS]


def parameters(path: str) -> list[str]:
    return re.findall(r"\{(\w+)", path)


def addresses(path: str, seeds: Seeds) -> Iterator[tuple[str, str]]:
    """The path with each of the tenant's ids, and with ids that never were."""
    for name, fixed in NAMES.items():
        path = path.replace(f"{{{name}}}", fixed)
    names = parameters(path)
    for ids in itertools.product(*(getattr(seeds, OWNED[name]) for name in names)):
        real = path
        for name, one in zip(names, ids, strict=True):
            real = real.replace(f"{{{name}}}", one)
        yield real, as_unknown(real)


def as_unknown(text: str) -> str:
    """The text with every id in it changed to one that never was."""
    return re.sub(r"\b([a-z]+_[0-9A-Z]{20})[0-9A-Z]{6}\b", r"\1NEVER0", text)


def rows_but_of(service: FastAPI, tenant: str) -> dict[str, list[Any]]:
    """Every row of the database that is not of this tenant, by table."""
    found = {}
    with service.state.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            query = select(table)
            found[table.name] = session.execute(
                query.where(table.c.tenant != tenant) if "tenant" in table.c else query
            ).all()
    return found


def telling(answer: Any) -> str:
    """What an answer says, less what differs between any two requests."""
    lines = [line for line in answer.text.splitlines() if "fiftytwo_http" not in line]
    return "\n".join(lines).replace(answer.headers["x-request-id"], "REQUEST")


@pytest.fixture
def stranger(client_for: Clients) -> TestClient:
    """An admin of another tenant."""
    return client_for("other", "admin")


def test_the_document_has_every_route(service: FastAPI) -> None:
    documented = {path for _, path in operations(service)}
    routes = [*service.routes, *(route for router in ROUTERS for route in router.routes)]
    # The panel's pages have a test of their own: tests/app/dashboard/test_strangers_on_pages.py.
    served = {one.path_format for one in routes if isinstance(one, Route) and not isinstance(one, PanelRoute)}
    assert documented <= served
    assert served - documented == UNDOCUMENTED
    unmapped = {name for path in documented - set(PUBLIC) for name in parameters(path)} - {*OWNED, *NAMES}
    assert not unmapped, f"say in OWNED or PUBLIC what {unmapped} name"


def test_a_stranger_meets_nothing_of_another_tenant(service: FastAPI, stranger: TestClient, tmp_path: Path) -> None:
    lists = [path for method, path in operations(service) if method == "GET" and not parameters(path)]
    empty = {path: telling(stranger.get(path)) for path in lists}
    seeds = seed(service, tmp_path)
    before = rows_but_of(service, "other")

    for method, path in operations(service):
        if path in PUBLIC:
            assert stranger.request(method, PUBLIC[path]).status_code == 200
        elif parameters(path):
            for real, never in addresses(path, seeds):
                answer = stranger.request(method, real, **SENT.get(path, {}))
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, real)
                assert as_unknown(telling(answer)) == telling(stranger.request(method, never, **SENT.get(path, {}))), (
                    method,
                    real,
                )
        elif method == "GET":
            assert telling(stranger.get(path)) == empty[path], path
        else:
            status, body = BODIES[path]
            answer = stranger.request(method, path, **body(seeds.dataset[0]))
            assert answer.status_code == status, (path, answer.text)
            unknown = stranger.request(method, path, **body(as_unknown(seeds.dataset[0])))
            assert as_unknown(telling(answer)) == telling(unknown), path
    assert rows_but_of(service, "other") == before


def test_without_a_key_there_is_no_answer(service: FastAPI, admin: TestClient, tmp_path: Path) -> None:
    seeds = seed(service, tmp_path)
    before = rows_but_of(service, "")
    nobody = TestClient(service)
    for method, path in operations(service):
        real = PUBLIC.get(path) or next(addresses(path, seeds))[0]
        for headers in ({}, {"Authorization": "Bearer ftw_nobodys"}, {"Authorization": "Basic YTpi"}):
            answer = nobody.request(method, real, headers=headers)
            if path in OPEN_PATHS:
                assert answer.status_code != 401, path
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert rows_but_of(service, "") == before


def test_a_viewer_reads_and_writes_nothing(
    service: FastAPI, admin: TestClient, client_for: Clients, tmp_path: Path
) -> None:
    seeds = seed(service, tmp_path)
    viewer, member = client_for(role="viewer"), client_for(role="member")
    before = rows_but_of(service, "")
    for method, path in operations(service):
        for real in [PUBLIC[path]] if path in PUBLIC else [real for real, _ in addresses(path, seeds)]:
            answer = viewer.request(method, real)
            if method == "GET" and path not in ADMINS_ONLY | MEMBERS_ONLY:
                assert answer.status_code != 403, path
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
            if path in ADMINS_ONLY:
                assert member.request(method, real).status_code == 403, (method, path)
            if path in MEMBERS_ONLY:
                assert member.request(method, real).status_code != 403, (method, path)
    assert rows_but_of(service, "") == before
