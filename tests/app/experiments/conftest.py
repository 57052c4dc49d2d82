"""One service for a module, a data set with test rows in it, and a worker around the stand-in engine."""

import json
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.auth.bootstrap import bootstrap
from app.datasets.models import Dataset
from app.ids import new_id
from app.main import create_app
from tests.app.experiments.asked import experiment
from tests.service import STAND_IN, lay_tables, settings_for, worker_for

ROWS = 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """A service with its tables."""
    folder = tmp_path_factory.mktemp("experiments")
    made = create_app(settings_for(folder, requests_per_second=1e6, max_open_jobs=60, heartbeat_seconds=0.1))
    lay_tables(made.state.database)
    return made


@pytest.fixture(scope="module")
def admin(service: FastAPI) -> Iterator[TestClient]:
    """A client with the first admin key."""
    secret = bootstrap(service.state.database, service.state.settings)
    with TestClient(service, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client


@pytest.fixture(scope="module")
def client_for(service: FastAPI, admin: TestClient) -> Callable[..., TestClient]:
    """Makes a client with a key of another tenant or role."""

    def make(tenant: str = "default", role: str = "member") -> TestClient:
        answer = admin.post("/v1/keys", json={"name": "test", "tenant": tenant, "role": role})
        return TestClient(service, headers={"Authorization": f"Bearer {answer.json()['secret']}"})

    return make


@pytest.fixture(scope="module")
def make_dataset(service: FastAPI, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes a data set of texts of the tenant `default`; gives its id."""

    def make(**columns: Any) -> str:
        file = tmp_path_factory.mktemp("rows") / "rows.parquet"
        texts = {
            "id": [f"{i:016x}" for i in range(ROWS)],
            "text": [f"the text of row {i}" for i in range(ROWS)],
            "label": pa.array([i % 2 for i in range(ROWS)], pa.int32()),
        }
        pq.write_table(pa.table(texts), file)
        stored = service.state.storage.save(file)
        values: dict[str, Any] = {
            "id": new_id("ds"),
            "tenant": "default",
            "task": "text_classification",
            "status": "ready",
            "rows": ROWS,
            "size_bytes": stored.size_bytes,
            "sha256": stored.sha256,
            "splits": {},
            "columns": {"text": "text", "label": "label"},
            "labels": ["ham", "spam"],
            "label_counts": {"ham": ROWS // 2, "spam": ROWS // 2},
            "problems": [],
            "storage_key": stored.key,
            "created_at": datetime.now(UTC),
        }
        row = Dataset(**(values | columns))
        with service.state.database.session() as session:
            session.add(row)
        return row.id

    return make


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., str]) -> str:
    """One data set."""
    return make_dataset()


@pytest.fixture(scope="module")
def run(service: FastAPI, admin: TestClient) -> Callable[[dict[str, Any], dict[str, float | None]], dict[str, Any]]:
    """Runs an experiment whose arms learn so much, by the names of their instructions; gives what its POST told."""

    def run_all(body: dict[str, Any], learned: dict[str, float | None]) -> dict[str, Any]:
        ways = json.dumps({"steps": 2, "sleep": 0, "rows": ROWS, "learned": learned})
        command = f"env {shlex.quote('STAND_IN=' + ways)} {STAND_IN}"
        settings = service.state.settings.model_copy(update={"engine_command": command})
        for waiting in admin.get("/v1/jobs?state=queued&limit=200").json()["data"]:
            admin.post(f"/v1/jobs/{waiting['id']}/cancel")
        answer = admin.post("/v1/experiments", json=body)
        assert answer.status_code == 202, answer.text
        told: dict[str, Any] = answer.json()
        worker = worker_for(settings, service.state.database)
        for arm in told["arms"]:
            for _ in arm["jobs"]:
                worker.run_next()
        return told

    return run_all


@pytest.fixture(scope="module")
def finished(run: Callable[..., dict[str, Any]], dataset: str) -> dict[str, Any]:
    """An experiment of two treatments whose nine jobs have ended: one that helps, and one that changes nothing."""
    treatments = [
        {"name": "edge", "changes": {"instructions": [47]}},
        {"name": "slow", "changes": {"instructions": ["warmup_schedule"]}},
    ]
    body = experiment(dataset, treatments=treatments, seeds=[1, 2, 3], human={"items": 10})
    return run(body, {"": 0.3, "post_training_quantization": 0.9, "warmup_schedule": 0.3})
