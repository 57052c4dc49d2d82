"""The ledger over HTTP: what is reserved, what is refused, and what nothing resets."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.privacy.models import PrivacyEntry
from engine.accounting import PrivacyEvent, epsilon
from tests.app.privacy.conftest import private_job

MakeDataset = Callable[..., str]
BUDGET = {"epsilon": 2.0, "delta": 1e-5}
PLAIN = {"task": "text_classification"}


def budget_of(client: TestClient, dataset: str) -> dict[str, Any]:
    found = [one for one in client.get("/v1/privacy/budgets").json()["data"] if dataset in one["datasets"]]
    assert len(found) == 1
    return dict(found[0])


def entries_of(client: TestClient, **filters: str) -> list[dict[str, Any]]:
    return list(client.get("/v1/privacy/ledger", params=filters).json()["data"])


def test_a_budget_is_put_and_told(admin: TestClient, dataset: MakeDataset) -> None:
    one = dataset()
    answer = admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["dataset"], told["epsilon"], told["delta"]) == (one, 2.0, 1e-5)
    assert (told["spent"], told["left"], told["guarantee"]) == (0.0, 2.0, "differential_privacy")
    assert budget_of(admin, one) == told


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"epsilon": 0, "delta": 1e-5}, "/epsilon"),
        ({"epsilon": "1", "delta": 1e-5}, "/epsilon"),
        ({"epsilon": 1.0}, "/delta"),
        ({"epsilon": 1.0, "delta": 1.0}, "/delta"),
        ({"epsilon": 1.0, "delta": 0.01}, "/delta"),  # above one over the number of rows
        ({"epsilon": 1.0, "delta": 1e-5, "epsilonn": 1}, "/epsilonn"),
    ],
)
def test_a_budget_that_is_none(admin: TestClient, dataset: MakeDataset, body: dict[str, Any], pointer: str) -> None:
    answer = admin.put(f"/v1/privacy/budgets/{dataset()}", json=body)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert admin.put("/v1/privacy/budgets/ds_none", json=BUDGET).status_code == 404


def test_a_private_job_is_reserved_before_it_runs(admin: TestClient, dataset: MakeDataset) -> None:
    one = dataset()
    admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET)
    job = admin.post("/v1/jobs", json=private_job(one))
    assert job.status_code == 202, job.text
    (entry,) = entries_of(admin, job=job.json()["id"])
    expected = {"unit": "record", "mechanism": "gaussian", "sampling": "poisson", "sampling_rate": 0.02}
    expected |= {"noise_multiplier": 1.0, "planned": 20, "counted": 0, "count": 20, "state": "reserved"}
    assert {name: entry[name] for name in expected} == expected
    spent = epsilon([PrivacyEvent(q=0.02, sigma=1.0, count=20)], 1e-5)
    told = budget_of(admin, one)
    assert told["spent"] == told["figures"]["pld"] == spent
    assert told["left"] == pytest.approx(2.0 - spent, abs=0.011)


def test_a_job_that_would_overspend_is_told_what_is_left(admin: TestClient, dataset: MakeDataset) -> None:
    one = dataset()
    admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET)
    assert admin.post("/v1/jobs", json=private_job(one)).status_code == 202
    too_much = private_job(one, steps=4_000)
    answer = admin.post("/v1/jobs", json=too_much)
    assert (answer.status_code, answer.json()["code"]) == (409, "budget_exhausted")
    (fault,) = answer.json()["errors"]
    left = budget_of(admin, one)["left"]
    assert fault["left"] == left
    assert f"{left:g} is left" in fault["detail"]
    assert admin.post("/v1/jobs?dry_run=true", json=too_much).status_code == 409
    assert len(entries_of(admin, dataset=one)) == 1
    assert len(admin.get("/v1/jobs").json()["data"]) == 1


def test_one_job_may_spend_the_whole_budget_and_none_follows(admin: TestClient, dataset: MakeDataset) -> None:
    one, two = dataset(), dataset(sha256="other")
    whole = epsilon([PrivacyEvent(q=0.02, sigma=1.0, count=20)], 1e-5)
    for each in (one, two):
        admin.put(f"/v1/privacy/budgets/{each}", json={"epsilon": whole, "delta": 1e-5})
    assert admin.post("/v1/jobs", json=private_job(one)).status_code == 202
    assert admin.post("/v1/jobs", json=private_job(one, steps=1)).status_code == 409
    assert admin.post("/v1/jobs", json=private_job(two, steps=21)).status_code == 409


def test_a_dry_run_tells_what_a_job_would_spend(admin: TestClient, dataset: MakeDataset) -> None:
    told = admin.post("/v1/jobs?dry_run=true", json=private_job(dataset())).json()["estimate"]["privacy"]
    assert (told["unit"], told["units"]) == ("record", 1_000)
    assert told["epsilon"] == epsilon([PrivacyEvent(q=0.02, sigma=1.0, count=20)], told["delta"])
    assert entries_of(admin) == []


def test_a_plain_job_on_a_budget_is_refused_with_the_way_out(admin: TestClient, dataset: MakeDataset) -> None:
    one, other = dataset(), dataset(sha256="other")
    admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET)
    for named, pointer in ((one, "/dataset"), ({"train": other, "valid": one, "test": other}, "/dataset/valid")):
        answer = admin.post("/v1/jobs", json=PLAIN | {"dataset": named})
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert (fault["pointer"], fault["code"]) == (pointer, "needs_privacy")
        assert "dp_sgd (37)" in fault["remedy"]
    assert admin.post("/v1/jobs", json=PLAIN | {"dataset": other}).status_code == 202


def test_without_a_budget_it_is_recorded_all_the_same(admin: TestClient, dataset: MakeDataset) -> None:
    one = dataset()
    for _ in range(2):
        assert admin.post("/v1/jobs", json=private_job(one)).status_code == 202
    told = budget_of(admin, one)
    assert (told["epsilon"], told["left"]) == (None, None)
    assert told["spent"] >= epsilon([PrivacyEvent(q=0.02, sigma=1.0, count=40)], told["delta"])
    assert len(entries_of(admin, dataset=one)) == 2


def test_of_two_that_come_together_one_fits(admin: TestClient, service: FastAPI, dataset: MakeDataset) -> None:
    one = dataset()
    half = epsilon([PrivacyEvent(q=0.02, sigma=1.0, count=20)], 1e-5)
    admin.put(f"/v1/privacy/budgets/{one}", json={"epsilon": half, "delta": 1e-5})
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: admin.post("/v1/jobs", json=private_job(one)), range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert len(entries_of(admin, dataset=one)) == 1


def test_a_repeat_gets_the_first_answer_though_nothing_is_left(admin: TestClient, dataset: MakeDataset) -> None:
    one = dataset()
    whole = epsilon([PrivacyEvent(q=0.02, sigma=1.0, count=20)], 1e-5)
    admin.put(f"/v1/privacy/budgets/{one}", json={"epsilon": whole, "delta": 1e-5})
    headers = {"Idempotency-Key": "again"}
    answers = [admin.post("/v1/jobs", json=private_job(one), headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]


def test_a_cancelled_job_that_never_ran_gives_its_reservation_back(admin: TestClient, dataset: MakeDataset) -> None:
    one = dataset()
    admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET)
    job = admin.post("/v1/jobs", json=private_job(one)).json()["id"]
    admin.post(f"/v1/jobs/{job}/cancel")
    assert [entry["state"] for entry in entries_of(admin, job=job)] == ["void"]
    assert budget_of(admin, one)["spent"] == 0
    admin.delete(f"/v1/jobs/{job}")
    assert len(entries_of(admin, job=job)) == 1


def test_only_an_admin_loosens_what_was_spent_of(
    admin: TestClient, client_for: Callable[..., TestClient], dataset: MakeDataset
) -> None:
    one, member = dataset(), client_for(role="member")
    address = f"/v1/privacy/budgets/{one}"
    assert member.put(address, json={"epsilon": 1.5, "delta": 1e-5}).status_code == 200
    assert member.put(address, json=BUDGET).status_code == 200
    assert member.post("/v1/jobs", json=private_job(one)).status_code == 202
    for looser in ({"epsilon": 2.5, "delta": 1e-5}, {"epsilon": 2.0, "delta": 1e-4}):
        assert member.put(address, json=looser).status_code == 403
    assert member.put(address, json={"epsilon": 1.9, "delta": 1e-5}).status_code == 200
    assert admin.put(address, json={"epsilon": 2.5, "delta": 1e-5}).status_code == 200
    last = admin.get("/v1/audit").json()["data"][0]
    assert (last["action"], last["detail"]["before"]["epsilon"]) == ("privacy.budget", 1.9)


def test_no_budget_while_a_plain_job_is_about_to_read_the_rows(admin: TestClient, dataset: MakeDataset) -> None:
    one = dataset()
    job = admin.post("/v1/jobs", json=PLAIN | {"dataset": one}).json()["id"]
    answer = admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET)
    assert answer.status_code == 409
    assert job in answer.json()["detail"]
    admin.post(f"/v1/jobs/{job}/cancel")
    assert admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET).status_code == 200


def test_units_are_not_added_up(admin: TestClient, service: FastAPI, dataset: MakeDataset) -> None:
    one = dataset()
    admin.put(f"/v1/privacy/budgets/{one}", json=BUDGET)
    admin.post("/v1/jobs", json=private_job(one))
    with service.state.database.session() as session:
        session.query(PrivacyEntry).update({"unit": "client"})
    answer = admin.post("/v1/jobs", json=private_job(one, steps=1))
    assert answer.status_code == 409
    assert "protects a client" in answer.json()["detail"]


def test_the_ledger_is_of_a_data_set_or_of_a_population(admin: TestClient, dataset: MakeDataset) -> None:
    answer = admin.get("/v1/privacy/ledger", params={"dataset": dataset(), "population": "pop_1"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "one_of_two")
