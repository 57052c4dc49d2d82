"""One service for all tests of refusals: they store nothing."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.auth.bootstrap import bootstrap
from app.jobs.states import State
from app.main import create_app
from app.settings import Settings
from tests.app.refusals.asking import Place
from tests.app.seeds import seed, seed_artifact
from tests.service import lay_tables


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A service with one of everything, and a client with an admin's key."""
    folder = tmp_path_factory.mktemp("service")
    settings = Settings(data_dir=folder / "data", requests_per_second=10_000, max_open_jobs=20)
    service = create_app(settings)
    lay_tables(service.state.database)
    secret = bootstrap(service.state.database, settings)
    seeds = seed(service, folder)
    trained = seeds.job[list(State).index(State.SUCCEEDED)]
    seed_artifact(service, folder, "default", trained, "checkpoint", "checkpoint.zip")
    with TestClient(service, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield Place(client, seeds)
