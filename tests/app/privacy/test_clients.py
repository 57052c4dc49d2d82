"""Instruction 40 over HTTP: the group column names the clients, and few of them are refused before anything runs."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from app.ids import new_id
from app.privacy.models import PrivacyEntry
from app.privacy.settlement import budget_for_run
from engine.accounting import PrivacyEvent, default_delta, epsilon

COLUMNS = {"text": "text", "label": "label", "group": "company"}


def by_client(dataset: str, **changes: Any) -> dict[str, Any]:
    chosen = {"name": "dp_gradient_aggregation", "noise_multiplier": 1.0, **changes}
    return {"task": "text_classification", "dataset": dataset, "instructions": [chosen]}


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_twenty_nine_companies_are_refused_with_the_reason(
    admin: TestClient, dataset: Callable[..., str], rate: float
) -> None:
    few = dataset(groups=29, columns=COLUMNS)
    for query in ("", "?dry_run=true"):
        answer = admin.post(f"/v1/jobs{query}", json=by_client(few, client_rate=rate))
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert (fault["pointer"], fault["code"]) == ("/instructions/0", "too_few_clients")
        assert fault["detail"].startswith("29 clients")
        assert "100 clients lost" in fault["detail"]
        assert "dp_sgd (37)" in fault["remedy"]
    # To claim more changes nothing.
    assert admin.post("/v1/jobs", json=by_client(few, clients=1_500)).status_code == 422


def test_rows_without_a_client_are_refused(admin: TestClient, dataset: Callable[..., str]) -> None:
    answer = admin.post("/v1/jobs", json=by_client(dataset()))
    assert [fault["code"] for fault in answer.json()["errors"]] == ["no_clients"]


@pytest.mark.parametrize(("changes", "nominal"), [({}, 1_500), ({"clients": 2_000}, 2_000)])
def test_many_clients_are_reserved_by_client(
    admin: TestClient, dataset: Callable[..., str], changes: dict[str, Any], nominal: int
) -> None:
    many = dataset(groups=1_500, columns=COLUMNS)
    dry = admin.post("/v1/jobs?dry_run=true", json=by_client(many, **changes)).json()["estimate"]["privacy"]
    own = epsilon([PrivacyEvent(q=0.2, sigma=1.0, count=30)], default_delta(nominal))
    assert (dry["unit"], dry["units"], dry["epsilon"]) == ("client", nominal, own)
    job = admin.post("/v1/jobs", json=by_client(many, **changes))
    assert job.status_code == 202, job.text
    (entry,) = admin.get(f"/v1/privacy/ledger?job={job.json()['id']}").json()["data"]
    assert (entry["unit"], entry["planned"], entry["sampling_rate"]) == ("client", 30, 0.2)
    assert entry["delta"] == default_delta(nominal)
    # Another unit on the same rows has no figure.
    record = {"name": "dp_sgd", "noise_multiplier": 1.0, "steps": 5, "expected_batch": 20}
    assert admin.post("/v1/jobs", json=by_client(many) | {"instructions": [record]}).status_code == 202
    (told,) = admin.get("/v1/privacy/budgets").json()["data"]
    assert (told["spent"], told["unit"], told["guarantee"]) == (None, None, "none")


def grouped(client: TestClient, column: str, order: int = 1) -> str:
    rows = [{"text": f"text {i}", "label": i % 2, "hospital": f"h{i % 300}", "row": f"r{i}"} for i in range(600)]
    content = "".join(json.dumps(row) + "\n" for row in rows[::order]).encode()
    data = {"task": "text_classification", "group_column": column}
    answer = client.post("/v1/datasets", data=data, files={"file": ("rows.jsonl", content)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_clients_of_two_groupings_do_not_add_up(admin: TestClient) -> None:
    hospitals, again, rows = grouped(admin, "hospital"), grouped(admin, "hospital", -1), grouped(admin, "row")
    jobs = [admin.post("/v1/jobs", json=by_client(one, clients=300)) for one in (hospitals, again)]
    assert [job.status_code for job in jobs] == [202, 202]
    (told,) = admin.get("/v1/privacy/budgets").json()["data"]
    assert (told["unit"], told["guarantee"]) == ("client", "differential_privacy")
    assert told["spent"] > 0
    assert admin.post("/v1/jobs", json=by_client(rows)).status_code == 202
    (told,) = admin.get("/v1/privacy/budgets").json()["data"]
    assert (told["spent"], told["guarantee"]) == (None, "none"), "the second protects single rows"


def test_a_budget_refuses_another_grouping_of_its_rows(admin: TestClient, service: FastAPI) -> None:
    hospitals, rows = grouped(admin, "hospital"), grouped(admin, "row")
    admin.put(f"/v1/privacy/budgets/{hospitals}", json={"epsilon": 100.0, "delta": 1e-5})
    job = admin.post("/v1/jobs", json=by_client(hospitals)).json()["id"]
    refused = admin.post("/v1/jobs", json=by_client(rows))
    assert (refused.status_code, refused.json()["code"]) == (409, "budget_exhausted")
    assert "another grouping" in refused.json()["detail"]
    # Where one ran all the same, before there was a budget, the run hears of no bound.
    with service.state.database.session() as session:
        (mine,) = session.scalars(select(PrivacyEntry).where(PrivacyEntry.job_id == job))
        session.execute(insert(PrivacyEntry).values(**beside(mine)))
        told = budget_for_run(session, job)
    assert told is not None
    assert (told["epsilon"], told["spent"][-1]["mechanism"]) == (None, "none")


def beside(entry: PrivacyEntry) -> dict[str, Any]:
    """The entry of another job by another grouping."""
    columns = {column.key: getattr(entry, column.key) for column in PrivacyEntry.__table__.columns}
    return columns | {"id": new_id("led"), "job_id": new_id("job"), "grouping": "another"}
