"""Faults in private runs: whatever is killed, the ledger has every draw that was made, and nothing is summed twice."""

import json
import random
import shlex
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save
from sqlalchemy import select

from app.auth.bootstrap import bootstrap
from app.jobs.models import JobFile
from app.main import create_app
from app.privacy import settlement
from app.privacy.composition import Spending, total
from app.privacy.service import reserve
from app.rounds.models import RoundUpdate
from app.storage import storage_for
from engine.accounting import PrivacyEvent, epsilon
from tests.faults.conftest import Installation
from tests.service import STAND_IN, job_of, put_job, states_of

DRAW = PrivacyEvent(q=0.01, sigma=1.0)
PLANNED = 60


def put_private_job(installation: Installation, **ways: Any) -> str:
    job_id = put_job(installation.database, **{"steps": 20, "sleep": 0.02, **ways, "private": DRAW.to_json()})
    with installation.database.session() as session:
        reserve(session, "default", "rows", job_id, Spending("record", 1_000, 1e-5, (DRAW.times(PLANNED),)))
    return job_id


def made(installation: Installation, job_id: str) -> int:
    """How many draws the spy saw."""
    return len((installation.settings.data_dir / "runs" / f"{job_id}.draws").read_text())


def test_14_a_private_run_whose_worker_is_killed_is_settled_in_full(installation: Installation) -> None:
    chance = random.Random(14)
    jobs = [put_private_job(installation, sleep=0.15) for _ in range(2)]  # not over before a step is told
    installation.start_worker()
    for job_id in jobs:
        installation.until_step(job_id, chance.randint(1, 8))
        installation.workers[-1].kill()
        installation.workers[-1].wait()
        installation.start_worker()
    for job_id in jobs:
        installation.until_state(job_id, "succeeded", "failed")
        with installation.database.reading() as session:
            entries = settlement.entries_of(session, job_id)
            spent = total(None, entries)
        assert sum(entry.count for entry in entries) >= made(installation, job_id) >= 20
        assert spent.quoted >= epsilon([DRAW.times(made(installation, job_id))], 1e-5)
        assert [entry.state for entry in entries] == ["lost"]


@pytest.fixture
def round_engine(installation: Installation) -> Installation:
    """The stand-in takes its time over a round, and draws once before its end."""
    ways = {"steps": 1, "sleep": 2.0, "private": DRAW.model_copy(update={"q": 1.0, "sampling": "none"}).to_json()}
    command = f"env {shlex.quote('STAND_IN=' + json.dumps(ways))} {STAND_IN}"
    installation.settings = installation.settings.model_copy(update={"engine_command": command})
    return installation


def test_a_worker_that_is_killed_in_mid_round(round_engine: Installation) -> None:
    installation = round_engine
    service = create_app(installation.settings)
    secret = bootstrap(installation.database, installation.settings)
    content = save({"w": np.ones(5, np.float32)})
    with TestClient(service, headers={"Authorization": f"Bearer {secret}"}) as client:
        budget = {"epsilon": 8.0, "delta": 1e-5}
        population = client.post("/v1/populations", json={"clients": 1_000, "budget": budget}).json()["id"]
        body = {"population": population, "clip_norm": 0.5, "noise_multiplier": 1.0, "expected_clients": 20}
        one = client.post("/v1/rounds", json=body).json()["id"]
        for i in range(10):
            headers = {"Content-Type": "application/octet-stream"}
            client.put(f"/v1/rounds/{one}/updates/c{i}", content=content, headers=headers)
        with installation.database.reading() as session:
            keys = set(session.scalars(select(RoundUpdate.storage_key)))
        job_id = client.post(f"/v1/rounds/{one}/close").json()["id"]
        installation.start_worker()
        installation.until(lambda: bool(installation.engines()), "the round never began")
        installation.workers[-1].kill()
        installation.workers[-1].wait()
        installation.start_worker()
        installation.until_state(job_id, "succeeded", "failed")
        (entry,) = client.get("/v1/privacy/ledger").json()["data"]
        left = client.get(f"/v1/populations/{population}").json()["left"]
    assert job_of(installation.database, job_id).state == "succeeded"
    assert states_of(installation.database, job_id).count("succeeded") == 1
    # Nobody can know whether the first attempt drew, so it counts; the second one draws what the first had planned.
    assert (entry["state"], entry["count"], made(installation, job_id)) == ("lost", 1, 1)
    assert left < 8.0
    storage = storage_for(installation.settings)
    installation.until(lambda: not any(storage.has(key) for key in keys), "an upload outlives its round")
    with installation.database.reading() as session:
        assert session.scalars(select(JobFile)).all() == []
