"""A write that names a version of a job is held against the very version that it changes, where rows have locks."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.jobs import endpoints, lifecycle
from app.openai.fine_tuning import endpoints as fine_tuning
from app.settings import Settings
from tests import postgres
from tests.app.seeds import seed_dataset, seed_job
from tests.service import job_of


@pytest.fixture
def settings(server: postgres.Server, tmp_path: Path) -> Settings:
    """Settings for a fresh database on Postgres."""
    return Settings(data_dir=tmp_path / "data", database_url=server.fresh(), requests_per_second=10_000)


def test_nobody_takes_a_job_between_its_if_match_and_the_move(
    service: FastAPI, admin: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, runs, dataset = service.state.database, list[Any](), seed_dataset(service, tmp_path)
    doors = (endpoints, "_present", "/v1/jobs", 202), (fine_tuning, "_shown", "/v1/fine_tuning/jobs", 200)
    for module, shows, path, status in doors:
        job_id, show = seed_job(service, dataset), getattr(module, shows)
        etag = admin.get(f"{path}/{job_id}").headers["etag"]

        def claim_meanwhile(*given: Any, show: Any = show) -> Any:
            shown = show(*given)
            runs.append(lifecycle.claim(database, "one", lease_seconds=60, threads=1))
            return shown

        with monkeypatch.context() as patch:
            patch.setattr(module, shows, claim_meanwhile)
            answer = admin.post(f"{path}/{job_id}/cancel", headers={"If-Match": etag})
        assert (answer.status_code, job_of(database, job_id).state) == (status, "cancelled")
    assert set(runs) == {None}
