"""Rows with a ledger: data sets that are there, and private jobs on them."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from app.datasets.models import Dataset
from app.ids import new_id
from app.settings import Settings
from tests.service import settings_for

NOISE = {"name": "dp_sgd", "noise_multiplier": 1.0, "steps": 20, "expected_batch": 20}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Short times, the stand-in engine, and no bound on requests."""
    return settings_for(tmp_path / "data", requests_per_second=10_000)


@pytest.fixture
def dataset(service: FastAPI, tmp_path: Path) -> Callable[..., str]:
    """Makes a data set of a thousand training rows; gives its id."""
    return lambda **columns: put_dataset(service, tmp_path, **columns)


def put_dataset(service: FastAPI, folder: Path, **columns: Any) -> str:
    """A data set of a thousand training rows, straight into the database; its id."""
    source = folder / "rows.parquet"
    source.write_bytes(b"rows" + columns.get("sha256", "").encode())
    stored = service.state.storage.save(source)
    row = {
        "id": new_id("ds"),
        "tenant": "default",
        "name": None,
        "task": "text_classification",
        "status": "ready",
        "rows": 1_100,
        "nominal_rows": None,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "splits": {"train": 1_000, "valid": 50, "test": 50},
        "columns": {"text": "text", "label": "label"},
        "labels": ["ham", "spam"],
        "label_counts": {"ham": 550, "spam": 550},
        "problems": [],
        "storage_key": stored.key,
        "created_at": datetime.now(UTC),
        **columns,
    }
    with service.state.database.session() as session:
        session.add(Dataset(**row))
    return str(row["id"])


def private_job(dataset: str, **changes: Any) -> dict[str, Any]:
    """The body of a job with instruction 37, whose noise is given, so that nobody has to look for it."""
    return {"task": "text_classification", "dataset": dataset, "instructions": [NOISE | changes]}
