"""Arms that train privately are compared row by row, and nothing tells of a row of theirs by itself."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.artifacts import repository as artifacts
from app.artifacts.models import Artifact
from engine.answers import KEPT
from tests.app.experiments.asked import experiment
from tests.app.experiments.conftest import ROWS

Made = dict[str, Any]
PRIVATE = [{"name": "dp_sgd", "noise_multiplier": 2.0}]


def with_private_arm(dataset: Any, **changes: Any) -> Made:
    """A plain baseline and a private treatment."""
    body = experiment(dataset, **changes)
    return body | {"treatments": [{"name": "private", "changes": {"instructions": PRIVATE}}]}


@pytest.fixture(scope="module")
def private_rows(make_dataset: Callable[..., str]) -> str:
    """Rows that are many enough for noise to hide one."""
    return make_dataset(rows=100_000, nominal_rows=100_000, lineage="private arms")


@pytest.fixture(scope="module")
def ended(run: Callable[..., Made], private_rows: str) -> Made:
    """An experiment whose jobs have ended."""
    return run(with_private_arm(private_rows), {"": 0.9, "dp_sgd": 0.3})


@pytest.fixture(scope="module")
def kept(service: FastAPI, ended: Made) -> list[Artifact]:
    """What the jobs of the private arm have left for the service alone."""
    with service.state.database.reading() as session:
        found = artifacts.kept(session, "default", ended["arms"][1]["jobs"])
    return [one for each in found.values() for one in each]


def test_a_private_arm_is_compared_by_rows_with_a_plain_one(admin: TestClient, ended: Made) -> None:
    told = admin.get(f"/v1/experiments/{ended['id']}")
    (comparison,) = told.json()["comparisons"]
    assert comparison["n"] == ROWS
    assert comparison["difference"] < -0.3
    assert (comparison["verdict"], told.json()["state"]) == ("worse", "succeeded")
    assert not any(f"{row:016x}" in told.text for row in range(ROWS))


def test_its_answers_are_handed_out_at_no_door(admin: TestClient, ended: Made, kept: list[Artifact]) -> None:
    assert artifacts.KEPT == KEPT
    assert [one.job_id for one in kept] == ended["arms"][1]["jobs"]
    plain, private = (arm["jobs"][0] for arm in ended["arms"])

    def kinds(job: str) -> set[str]:
        listed = {one["kind"] for one in admin.get(f"/v1/jobs/{job}/artifacts").json()["data"]}
        assert listed == {one["kind"] for one in admin.get(f"/v1/jobs/{job}").json()["artifacts"]}
        return listed

    assert kinds(plain) == {"model", "checkpoint", "receipt", "answers"}
    assert kinds(private) == {"model", "checkpoint", "receipt"}
    for one in kept:
        for path in ("/v1/artifacts/{}", "/v1/artifacts/{}/content", "/v1/files/{}", "/v1/files/{}/content"):
            assert admin.get(path.format(one.id)).status_code == 404, path
    ids = {one["id"] for one in admin.get("/v1/files?limit=1000&purpose=fine-tune-results").json()["data"]}
    assert ids
    assert ids.isdisjoint({one.id for one in kept})


def test_they_are_erased_with_their_job(service: FastAPI, admin: TestClient, kept: list[Artifact]) -> None:
    first = kept[0]
    assert service.state.storage.has(first.storage_key)
    assert admin.delete(f"/v1/jobs/{first.job_id}").status_code == 202
    assert not service.state.storage.has(first.storage_key)


def test_a_single_private_job_may_not_ask_for_them(admin: TestClient, private_rows: str) -> None:
    body = {"task": "text_classification", "dataset": private_rows, "instructions": PRIVATE, "answers": True}
    answer = admin.post("/v1/jobs?dry_run=true", json=body)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["pointer"], fault["code"]) == ("/instructions/0", "rows_in_the_answers")
    assert admin.post("/v1/jobs?dry_run=true", json=body | {"answers": False}).status_code == 200


def test_test_rows_of_a_data_set_of_their_own_are_told_of_and_shown(
    admin: TestClient, private_rows: str, dataset: str
) -> None:
    apart = {"train": private_rows, "test": dataset}
    told = admin.post("/v1/experiments", json=with_private_arm(apart, human={"items": 4}))
    assert told.status_code == 202, told.text
    assert [admin.get(f"/v1/jobs/{arm['jobs'][0]}").json()["answers"] for arm in told.json()["arms"]] == [True, True]


def test_rows_with_a_budget_have_no_plain_arm(admin: TestClient, make_dataset: Callable[..., str]) -> None:
    dataset = make_dataset(rows=100_000, nominal_rows=100_000, lineage="rows with a budget")
    budget = admin.put(f"/v1/privacy/budgets/{dataset}", json={"epsilon": 50.0, "delta": 1e-6})
    assert budget.status_code == 200, budget.text
    answer = admin.post("/v1/experiments", json=with_private_arm(dataset))
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["pointer"], fault["code"]) == ("/baseline/dataset", "needs_privacy")
    assert "budget" in fault["detail"]
    assert "dp_sgd" in fault["remedy"]
    body = with_private_arm(dataset)
    body["baseline"]["instructions"] = [{"name": "dp_sgd", "noise_multiplier": 4.0}]
    told = admin.post("/v1/experiments", json=body)
    assert told.status_code == 202, told.text
    assert [admin.get(f"/v1/jobs/{arm['jobs'][0]}").json()["answers"] for arm in told.json()["arms"]] == ["kept"] * 2
