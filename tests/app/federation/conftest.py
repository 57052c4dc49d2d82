"""A population, and rounds of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from tests.service import settings_for

POPULATION = {"name": "wards", "clients": 1_000, "budget": {"epsilon": 8.0, "delta": 1e-5}}
ROUND = {"clip_norm": 0.5, "noise_multiplier": 1.0, "expected_clients": 20}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The engine itself: it starts once."""
    return settings_for(tmp_path / "data", requests_per_second=10_000, engine_command="", lease_seconds=60)


@pytest.fixture
def population(admin: TestClient) -> str:
    answer = admin.post("/v1/populations", json=POPULATION)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def opened(admin: TestClient, population: str) -> Callable[..., str]:
    """Opens a round; gives its id."""

    def open_one(**changes: Any) -> str:
        answer = admin.post("/v1/rounds", json={"population": population, **ROUND, **changes})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    return open_one
