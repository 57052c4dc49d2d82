"""The public number of rows: what is published of a private job does not follow from the number that it stands for."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.jobs import lifecycle
from tests.app.privacy.conftest import private_job
from tests.app.privacy.test_clients import COLUMNS, by_client

MakeDataset = Callable[..., str]
NAMED = {"train": 1_000, "valid": 50, "test": 50}


def told(admin: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = admin.post("/v1/jobs?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["estimate"])


def by_epochs(dataset: str | dict[str, str]) -> dict[str, Any]:
    return private_job("", steps=None) | {"dataset": dataset}


@pytest.mark.parametrize(
    ("splits", "others", "nominal"),
    [
        ({}, {}, 1_600),
        (NAMED, NAMED | {"train": 1_017}, 2_000),
        (NAMED, {"train": 1_000, "valid": 99, "test": 2}, 2_000),
    ],
)
def test_neighbours_are_told_alike(
    admin: TestClient, dataset: MakeDataset, splits: dict[str, int], others: dict[str, int], nominal: int
) -> None:
    """Eight tenths where hashes deal the rows out; a share of named splits would tell how many rows train."""
    one = dataset(splits=splits, nominal_rows=2_000, sha256="a" * 64)
    other = dataset(splits=others, nominal_rows=2_000, sha256="b" * 64, rows=1_101)
    first, second = told(admin, by_epochs(one)), told(admin, by_epochs(other))
    assert first["privacy"] == second["privacy"]
    assert first["total_steps"] == second["total_steps"]
    assert first["privacy"]["units"] == nominal
    assert first["privacy"]["releases"][0]["q"] == 20 / nominal


def test_a_file_for_training_alone_has_a_number_of_its_own(admin: TestClient, dataset: MakeDataset) -> None:
    train, test = dataset(splits={}, nominal_rows=2_000), dataset(splits={}, nominal_rows=7, sha256="b" * 64)
    assert told(admin, by_epochs({"train": train, "test": test}))["privacy"]["units"] == 2_000


def test_a_number_that_would_let_a_row_out_is_refused(admin: TestClient, dataset: MakeDataset) -> None:
    answer = admin.post("/v1/jobs", json=private_job(dataset(nominal_rows=300)))
    (fault,) = answer.json()["errors"]
    assert (answer.status_code, fault["pointer"], fault["code"]) == (422, "/dataset", "nominal_rows_too_small")
    assert "1000" not in fault["detail"] + fault["remedy"]
    assert admin.post("/v1/jobs", json=private_job(dataset(nominal_rows=900))).status_code == 202


@pytest.mark.parametrize(("make", "rows"), [(private_job, 1_000), (by_client, 1_500)])
def test_a_run_hears_which_number_to_show(
    admin: TestClient, service: FastAPI, dataset: MakeDataset, make: Callable[[str], dict[str, Any]], rows: int
) -> None:
    """It is one of rows, also where clients are what the account counts."""
    shown = []
    for nominal in (None, 2_000):
        body = make(dataset(nominal_rows=nominal, splits={}, rows=1_250, groups=1_500, columns=COLUMNS))
        assert admin.post("/v1/jobs", json=body).status_code == 202
        run = lifecycle.claim(service.state.database, "one", 60, 1)
        assert run is not None
        assert run.privacy is not None
        shown.append((run.privacy["rows"], run.privacy["shown_rows"]))
    assert shown == [(rows, None), (rows if rows == 1_500 else 1_600, 1_600)]


def test_clients_are_those_of_the_training_file(admin: TestClient, dataset: MakeDataset) -> None:
    train = dataset(groups=1_500, columns=COLUMNS, splits={})
    plain = dataset(splits={}, sha256="b" * 64)
    body = by_client("", client_field="company") | {"dataset": {"train": train, "test": plain}}
    assert told(admin, body)["privacy"]["units"] == 1_500
    turned = admin.post("/v1/jobs", json=body | {"dataset": {"train": plain, "test": train}})
    assert [fault["code"] for fault in turned.json()["errors"]] == ["no_clients"]
