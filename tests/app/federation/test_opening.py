"""Populations and rounds over HTTP: which there can be, and what is told of them beforehand."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from engine.accounting import PrivacyEvent, epsilon
from tests.app.federation.conftest import POPULATION, ROUND


def test_a_population_is_made_and_told(admin: TestClient, population: str) -> None:
    told = admin.get(f"/v1/populations/{population}").json()
    expected = {"clients": 1_000, "unit": "client", "min_clients": 10, "spent": 0.0, "left": 8.0}
    assert {name: told[name] for name in expected} == expected
    assert told["budget"] == {"epsilon": 8.0, "delta": 1e-5}
    assert "100 clients lost 7.5 points" in told["warnings"][0]
    assert admin.get("/v1/populations").json()["data"] == [told]
    assert admin.post("/v1/populations", json=POPULATION | {"clients": 2_000}).json()["warnings"] == []


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"min_clients": 9}, "/min_clients"),
        ({"clients": 20, "min_clients": 21}, "/min_clients"),
        ({"budget": {"epsilon": 8.0}}, "/budget/delta"),
        ({"budget": {"epsilon": 8.0, "delta": 0.001}}, "/budget/delta"),
        ({"unit": "record"}, "/unit"),
        ({"clients": 1.5}, "/clients"),
        ({"owner": "me"}, "/owner"),
    ],
)
def test_a_population_that_is_none(admin: TestClient, changes: dict[str, Any], pointer: str) -> None:
    answer = admin.post("/v1/populations", json=POPULATION | changes)
    assert answer.status_code == 422
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"epsilon": 1.0}, "one_of_two"),
        ({"noise_multiplier": None}, "one_of_two"),
        ({"format": "weights"}, "missing_base"),
        ({"base": "art_none"}, "unknown_artifact"),
        ({"clip_norm": 0}, "greater_than"),
        ({"sampling": {"poisson": 1.5}}, "less_than_equal"),
        ({"tensors": {"w": {"shape": [2], "dtype": "I64"}}}, "literal_error"),
        ({"tensors": {"w": {"shape": [-1], "dtype": "F32"}}}, "greater_than_equal"),
        ({"tensors": {"w": {"shape": [2**31], "dtype": "F32"}}}, "less_than_equal"),
        ({"tensors": {"w": {"shape": [2**70], "dtype": "F32"}}}, "less_than_equal"),
        ({"tensors": {"w": {"shape": [2**30] * 16, "dtype": "F32"}}}, "wrong_size"),
        ({"tensors": {"w": {"shape": [1 << 29], "dtype": "F32"}, "b": {"shape": [1], "dtype": "F16"}}}, "wrong_size"),
        ({"tensors": {"w": {"shape": [5, 0], "dtype": "F32"}}}, "wrong_size"),
        ({"delta": 0.9}, "delta_too_large"),
        ({"delta": 0.001}, "delta_too_large"),
        ({"delta": 0.9, "noise_multiplier": None, "epsilon": 1.0}, "delta_too_large"),
    ],
)
def test_a_round_that_is_none(admin: TestClient, population: str, changes: dict[str, Any], code: str) -> None:
    answer = admin.post("/v1/rounds", json={"population": population, **ROUND, **changes})
    assert answer.status_code == 422, answer.text
    assert code in [fault["code"] for fault in answer.json()["errors"]]
    assert admin.post("/v1/rounds", json={"population": "pop_none", **ROUND}).status_code == 404


def test_a_round_may_have_a_delta_of_its_own_below_one_in_the_clients(admin: TestClient, population: str) -> None:
    told = admin.post("/v1/rounds", json={"population": population, **ROUND, "delta": 9e-4}).json()
    assert told["delta"] == 9e-4
    refused = admin.post("/v1/rounds", json={"population": population, **ROUND, "delta": 0.9}).json()
    (fault,) = refused["errors"]
    assert (fault["pointer"], fault["remedy"]) == ("/delta", "send less than 0.001")


def test_a_round_takes_tensors_up_to_the_largest_upload(admin: TestClient, population: str) -> None:
    largest = {"w": {"shape": [1 << 29], "dtype": "F32"}}  # 2 GiB, the default of FIFTYTWO_MAX_UPLOAD_BYTES
    answer = admin.post("/v1/rounds", json={"population": population, **ROUND, "tensors": largest})
    assert answer.status_code == 201, answer.text


def test_a_round_says_what_it_will_spend(admin: TestClient, population: str) -> None:
    told = admin.post("/v1/rounds", json={"population": population, **ROUND}).json()
    one = PrivacyEvent(q=1.0, sigma=1.0, sampling="none")
    assert told["epsilon"] == epsilon([one], 1e-5)
    assert (told["delta"], told["sampling"], told["state"], told["job"]) == (1e-5, "none", "open", None)
    assert admin.get(told["links"]["self"]).json() == told
    by_epsilon = {"noise_multiplier": None, "epsilon": 2.0}
    quiet = admin.post("/v1/rounds", json={"population": population, **ROUND, **by_epsilon}).json()
    assert 1.9 <= quiet["epsilon"] <= 2.0
    assert quiet["noise_multiplier"] > 1
