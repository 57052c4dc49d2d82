"""Instruction 40 over HTTP: the group column names the clients, and few of them are refused before anything runs."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

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
        assert "30 clients stayed near chance" in fault["detail"]
        assert "1,500 lost 4 points" in fault["remedy"]
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
