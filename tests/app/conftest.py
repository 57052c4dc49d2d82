"""A service in this process on a database of its own, clients with keys for it, and databases of both kinds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.auth.bootstrap import bootstrap
from app.database import Database
from app.main import create_app
from app.settings import Settings
from tests import postgres
from tests.service import lay_tables, tables


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a folder of the test's own."""
    return Settings(data_dir=tmp_path / "data", requests_per_second=10_000)


@pytest.fixture
def service(settings: Settings) -> FastAPI:
    """A service with its tables."""
    made = create_app(settings)
    lay_tables(made.state.database)
    return made


@pytest.fixture
def admin(service: FastAPI) -> Iterator[TestClient]:
    """A client with the first admin key of the tenant `default`."""
    secret = bootstrap(service.state.database, service.state.settings)
    with TestClient(service, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client


@pytest.fixture
def client_for(service: FastAPI, admin: TestClient) -> Callable[..., TestClient]:
    """Makes a client with a key of another tenant or role."""

    def make(tenant: str = "default", role: str = "member") -> TestClient:
        answer = admin.post("/v1/keys", json={"name": "test", "tenant": tenant, "role": role})
        assert answer.status_code == 201, answer.text
        return TestClient(service, headers={"Authorization": f"Bearer {answer.json()['secret']}"})

    return make


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """One Postgres server for all tests of this folder."""
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database with its tables, on either."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "postgres":
        running: postgres.Server = request.getfixturevalue("server")
        url = running.fresh()
    with tables(url) as database:
        yield database
