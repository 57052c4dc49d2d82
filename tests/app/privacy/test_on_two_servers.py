"""Two servers on one Postgres: of jobs that come to both at once, as many are reserved as the budget holds."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.auth.bootstrap import bootstrap
from app.main import create_app
from app.settings import Settings
from engine.accounting import PrivacyEvent, epsilon
from tests import postgres
from tests.app.privacy.conftest import private_job, put_dataset
from tests.service import tables

WHOLE = epsilon([PrivacyEvent(q=0.02, sigma=1.0, count=20)], 1e-5)


@pytest.fixture
def servers(server: postgres.Server, tmp_path: Path) -> Iterator[list[tuple[FastAPI, TestClient]]]:
    """Two of them, each with a client."""
    settings = Settings(data_dir=tmp_path / "data", database_url=server.fresh(), requests_per_second=10_000)
    with ExitStack() as stack:
        stack.enter_context(tables(settings.database))
        services = [create_app(settings) for _ in range(2)]
        secret = bootstrap(services[0].state.database, settings)
        headers = {"Authorization": f"Bearer {secret}"}
        yield [(one, stack.enter_context(TestClient(one, headers=headers))) for one in services]


def test_of_jobs_that_come_together_one_is_reserved(servers: list[tuple[FastAPI, TestClient]], tmp_path: Path) -> None:
    one = put_dataset(servers[0][0], tmp_path)
    clients = [client for _, client in servers]
    assert clients[0].put(f"/v1/privacy/budgets/{one}", json={"epsilon": WHOLE, "delta": 1e-5}).status_code == 200
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda i: clients[i % 2].post("/v1/jobs", json=private_job(one)), range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert len(clients[1].get("/v1/privacy/ledger").json()["data"]) == 1


def test_a_budget_and_plain_jobs_that_come_together_do_not_pass_each_other(
    servers: list[tuple[FastAPI, TestClient]], tmp_path: Path
) -> None:
    one = put_dataset(servers[0][0], tmp_path)
    budget, plain = {"epsilon": 2.0, "delta": 1e-5}, {"task": "text_classification", "dataset": one}

    def send(i: int) -> Any:
        client = servers[i % 2][1]
        return client.put(f"/v1/privacy/budgets/{one}", json=budget) if i == 3 else client.post("/v1/jobs", json=plain)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    queued = sum(answer.status_code == 202 for answer in answers)
    # Either the budget was first and every later job is refused, or a job was first and the budget is.
    assert {answer.status_code for answer in answers} <= {200, 202, 409, 422}
    assert (answers[3].status_code == 200) is (queued == 0)
