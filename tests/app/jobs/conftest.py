"""A data set that is ready, and a worker in this process."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.datasets.models import Dataset
from app.ids import new_id
from app.settings import Settings
from tests.service import STAND_IN, settings_for, worker_for
from worker.tasks import Worker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Short times, the stand-in engine, and no bound on requests."""
    return settings_for(tmp_path / "data", requests_per_second=10_000, max_open_jobs=60, engine_command=STAND_IN)


@pytest.fixture
def dataset(service: FastAPI, tmp_path: Path) -> Callable[..., str]:
    """Makes a data set of a tenant; gives its id."""

    def make(tenant: str = "default", **columns: object) -> str:
        source = tmp_path / "rows.parquet"
        source.write_bytes(b"rows of " + tenant.encode())
        stored = service.state.storage.save(source)
        row = Dataset(
            **{
                "id": new_id("ds"),
                "tenant": tenant,
                "name": None,
                "task": "text_classification",
                "status": "ready",
                "rows": 100,
                "nominal_rows": None,
                "size_bytes": stored.size_bytes,
                "sha256": stored.sha256,
                "splits": {},
                "columns": {"text": "string", "label": "int32"},
                "labels": ["ham", "spam"],
                "label_counts": {"ham": 50, "spam": 50},
                "problems": [],
                "storage_key": stored.key,
                "created_at": datetime.now(UTC),
                **columns,
            }
        )
        with service.state.database.session() as session:
            session.add(row)
        return row.id

    return make


@pytest.fixture
def worker(service: FastAPI) -> Worker:
    """A worker on the service's database."""
    return worker_for(service.state.settings, service.state.database)
