"""What would freeze, outgrow or break the service is refused as an address, a body or a file, with what to send."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.federation import rounds
from engine import accounting
from tests.app.federation.conftest import POPULATION, ROUND

BYTES = {"Content-Type": "application/octet-stream"}


def file_of(header: dict[str, Any] | str, values: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + values


def one_tensor(name: str, shape: list[Any], values: int) -> bytes:
    return file_of({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * values]}}, bytes(4 * values))


@pytest.mark.parametrize(
    "content",
    [
        one_tensor("w", [1] * 17, 1),
        one_tensor("w", [0, 2**70], 0),
        one_tensor("w", [10**17] * 900, 1),
        one_tensor("\ud800", [1], 1),
        file_of('{"w":{"dtype":"F32","shape":[' + "9" * 4_000 + '],"data_offsets":[0,4]}}', bytes(4)),
    ],
    ids=["17 dimensions", "2**70 of none", "900 dimensions", "no text", "4,000 digits"],
)
def test_a_first_update_that_no_round_can_have(admin: TestClient, opened: Any, content: bytes) -> None:
    one = opened()
    answer = admin.put(f"/v1/rounds/{one}/updates/first", content=content, headers=BYTES)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "not_safetensors"), answer.text
    assert admin.get(f"/v1/rounds/{one}").json()["tensors"] is None


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"tensors": {"w": {"shape": ["3"], "dtype": "F32"}}}, "/tensors/w/shape/0", "int_type"),
        ({"tensors": {"w": {"shape": [True], "dtype": "F32"}}}, "/tensors/w/shape/0", "int_type"),
        ({"tensors": {"w": {"shape": [3.0], "dtype": "F32"}}}, "/tensors/w/shape/0", "int_type"),
        ({"tensors": {"w": {"shape": [1] * 17, "dtype": "F32"}}}, "/tensors/w/shape", "too_long"),
        ({"tensors": {"__metadata__": {"shape": [3], "dtype": "F32"}}}, "/tensors", "wrong_name"),
        ({"tensors": {"\ud800": {"shape": [3], "dtype": "F32"}}}, "/tensors", "wrong_name"),
        ({"sampling": {"poisson": 5e-324}}, "/sampling", "greater_than_equal"),
        ({"noise_multiplier": None, "epsilon": 1e-10}, "/epsilon", "greater_than_equal"),
        ({"delta": 5e-324}, "/delta", "greater_than_equal"),
    ],
)
def test_a_round_that_can_give_no_result(
    admin: TestClient, population: str, changes: dict[str, Any], pointer: str, code: str
) -> None:
    content = json.dumps({"population": population, **ROUND, **changes})
    answer = admin.post("/v1/rounds", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    (fault,) = [fault for fault in answer.json()["errors"] if fault["code"] == code]
    assert fault["pointer"].startswith(pointer)
    assert fault["remedy"]


def test_a_round_of_hardly_any_client_has_the_least_noise(admin: TestClient, population: str) -> None:
    rare = {"noise_multiplier": None, "epsilon": 0.1, "sampling": {"poisson": 2e-9}}
    told = admin.post("/v1/rounds", json={"population": population, **ROUND, **rare}).json()
    assert told["noise_multiplier"] == accounting.LEAST_NOISE


def test_the_smallest_delta_has_a_finite_epsilon(admin: TestClient, population: str) -> None:
    strict = {"noise_multiplier": None, "epsilon": 20.0, "delta": 1e-300}
    answer = admin.post("/v1/rounds", json={"population": population, **ROUND, **strict})
    assert answer.status_code == 201, answer.text
    assert 0 < answer.json()["epsilon"] <= 20
    assert answer.json()["noise_multiplier"] <= 1e4


def test_no_sum_is_made_while_others_wait_to_write(
    admin: TestClient, service: FastAPI, population: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing: list[bool] = [False]
    summed: list[bool] = []
    renyi = accounting._rdp.__wrapped__

    def told(*given: Any) -> float:
        summed.append(writing[0])
        return float(renyi(*given))

    event.listen(service.state.database.engine, "begin", lambda _: writing.__setitem__(0, True))
    event.listen(service.state.database.engine, "commit", lambda _: writing.__setitem__(0, False))
    accounting._pld.cache_clear()
    monkeypatch.setattr(
        rounds, "epsilon", lambda events, delta: accounting.rounded_up(accounting._pld(tuple(events), delta, None))
    )
    monkeypatch.setattr(accounting, "_rdp", told)
    admin.post("/v1/rounds", json={"population": population, **ROUND, "noise_multiplier": 1.2345})
    assert summed[0] is False
    accounting._pld.cache_clear()


def test_the_first_remedy_stands_at_the_top(admin: TestClient, population: str) -> None:
    refused = admin.post("/v1/rounds", json={"population": population, **ROUND, "delta": 0.9}).json()
    assert refused["remedy"] == refused["errors"][0]["remedy"] == "send less than 0.001"
    wrong = POPULATION | {"budget": {"epsilon": 8.0, "delta": 0.01}}
    assert admin.post("/v1/populations", json=wrong).json()["remedy"] == "send less than 0.001"


def test_a_client_named_with_a_slash_is_not_there(admin: TestClient, opened: Any) -> None:
    for path in (f"/v1/rounds/{opened()}/updates/a/b", f"/v1/rounds/{opened()}/updates/a%2Fb"):
        answer = admin.put(path, content=one_tensor("w", [1], 1) + b"\xff\0", headers=BYTES)
        assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("budget", [{"epsilon": 5e-324, "delta": 1e-5}, {"epsilon": 1.0, "delta": 5e-324}])
def test_a_budget_that_nothing_fits_is_refused(admin: TestClient, budget: dict[str, float]) -> None:
    answer = admin.post("/v1/populations", json=POPULATION | {"budget": budget})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "greater_than_equal")
