"""An experiment is submitted whole or not at all, tells every fault of every arm, and is what its jobs are."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.app.experiments.asked import experiment


def faults(answer: Any) -> set[tuple[str, str]]:
    """Pointer and code of each fault."""
    assert answer.status_code == 422, answer.text
    return {(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]}


def jobs_of(admin: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.get("/v1/jobs?limit=200").json()["data"]
    return found


def test_every_arm_with_every_seed_is_an_ordinary_job(admin: TestClient, dataset: str) -> None:
    answer = admin.post("/v1/experiments", json=experiment(dataset))
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert answer.headers["location"] == f"/v1/experiments/{told['id']}"
    assert told["id"].startswith("exp_")
    assert (told["object"], told["state"], told["metric"]) == ("experiment", "running", "accuracy")
    assert [arm["name"] for arm in told["arms"]] == ["baseline", "edge"]
    assert (told["comparisons"], told["human"], told["front"]) == ([], None, [])
    specs = [[admin.get(f"/v1/jobs/{job}").json() for job in arm["jobs"]] for arm in told["arms"]]
    assert [[one["training"]["seed"] for one in arm] for arm in specs] == [[1, 2], [1, 2]]
    assert {one["answers"] for arm in specs for one in arm} == {True}
    assert [one["name"] for one in specs[1]] == ["pruned or not: edge, seed 1", "pruned or not: edge, seed 2"]
    # A merge patch: what the changes do not name stays the baseline's.
    assert {(one["training"]["epochs"], one["training"]["batch_size"]) for one in specs[0]} == {(2, 32)}
    assert {(one["training"]["epochs"], one["training"]["batch_size"]) for one in specs[1]} == {(2, 8)}
    assert {one["dataset"] for arm in specs for one in arm} == {dataset}
    assert [[step["number"] for step in one["plan"]] for one in specs[1]] == [[47], [47]]
    assert admin.get(f"/v1/experiments/{told['id']}").json() == told
    assert told in admin.get("/v1/experiments").json()["data"]


def test_three_seeds_and_no_people_are_the_default(admin: TestClient, dataset: str) -> None:
    told = admin.post(
        "/v1/experiments",
        json={
            "baseline": {"task": "text_classification", "dataset": dataset},
            "treatments": [{"name": "edge", "changes": {}}],
        },
    ).json()
    assert (told["seeds"], told["human"], told["margin"]) == ([1, 2, 3], None, 0.01)


def test_every_fault_of_every_arm_is_told_at_once_and_nothing_is_stored(admin: TestClient, dataset: str) -> None:
    before = jobs_of(admin)
    body = experiment(
        dataset,
        seeds=[1, 1],
        baseline={
            "task": "text_classification",
            "dataset": "ds_none",
            "training": {"epochs": 0, "seed": 5},
            "auto_start": False,
            "webhook": {"url": "https://example.org", "secret": "whsec_c2VjcmV0"},
        },
        treatments=[
            {"name": "edge", "changes": {"instructions": [47, 47], "training": {"seed": 6, "batch_size": 0}}},
            {"name": "edge", "changes": {"metric": "macro_f1", "dataset": dataset, "colour": "red"}},
            {"name": "baseline", "changes": {"model": "no-such-model"}},
        ],
    )
    found = faults(admin.post("/v1/experiments", json=body))
    assert found >= {
        ("/seeds", "second_seed"),
        ("/baseline/dataset", "unknown_dataset"),
        ("/baseline/training/epochs", "greater_than_equal"),
        ("/baseline/training/seed", "decided_twice"),
        ("/baseline/auto_start", "decided_by_experiment"),
        ("/baseline/webhook", "decided_by_experiment"),
        ("/treatments/0/changes/training/seed", "decided_twice"),
        ("/treatments/0/changes/training/batch_size", "greater_than_equal"),
        ("/treatments/1/name", "second_arm"),
        ("/treatments/1/changes/metric", "not_a_treatment"),
        ("/treatments/1/changes/dataset", "not_a_treatment"),
        ("/treatments/1/changes/colour", "unknown_field"),
        ("/treatments/2/name", "second_arm"),
        ("/treatments/2/changes/model", "unknown_model"),
    }
    assert {pointer for pointer, _ in found if pointer.endswith("/epochs")} == {"/baseline/training/epochs"}
    assert jobs_of(admin) == before


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"seeds": [1]}, "/seeds", "too_short"),
        ({"treatments": []}, "/treatments", "too_short"),
        ({"human": {"items": 0}}, "/human/items", "greater_than_equal"),
        ({"margin": 0}, "/margin", "greater_than"),
        ({"colour": "red"}, "/colour", "unknown_field"),
        ({"baseline": 3}, "/baseline", "dict_type"),
        ({"treatments": [{"name": "a"}]}, "/treatments/0/changes", "missing"),
        (
            {"treatments": [{"name": "a", "changes": {"instructions": [9]}}]},
            "/treatments/0/changes/instructions",
            "other_rows",
        ),
        (
            {"treatments": [{"name": "a", "changes": {"export": {"format": "gguf"}}}]},
            "/treatments/0/changes/export",
            "wrong_format",
        ),
        ({"treatments": [{"name": "a", "changes": {"kind": "detect"}}]}, "/treatments/0/changes/kind", None),
    ],
)
def test_an_experiment_that_is_none(
    admin: TestClient, dataset: str, changes: dict[str, Any], pointer: str, code: str | None
) -> None:
    found = faults(admin.post("/v1/experiments", json=experiment(dataset) | changes))
    assert (pointer, code or "decided_by_experiment") in found


def test_a_fault_that_the_baseline_and_the_changes_make_together_points_at_the_changes(
    admin: TestClient, dataset: str
) -> None:
    body = experiment(dataset)
    body["baseline"]["limits"] = {"max_epsilon": 3.0}
    body["baseline"]["instructions"] = [37]
    body["treatments"] = [{"name": "open", "changes": {"instructions": []}}]
    found = faults(admin.post("/v1/experiments", json=body))
    assert {one for one in found if one[0].startswith("/treatments")} == {("/treatments/0/changes", "not_applicable")}


def test_people_are_shown_no_row_of_a_private_data_set(admin: TestClient, make_dataset: Callable[..., str]) -> None:
    dataset = make_dataset(rows=100_000, nominal_rows=100_000, lineage="private")
    private = [{"name": "dp_sgd", "noise_multiplier": 2.0}]
    body = experiment(dataset, human={"items": 4})
    body["treatments"] = [{"name": "private", "changes": {"instructions": private}}]
    assert faults(admin.post("/v1/experiments", json=body)) == {("/human", "rows_shown")}
    told = admin.post("/v1/experiments", json=body | {"human": None})
    assert told.status_code == 202, told.text
    # Each seed is a release of its own, and reserved as one.
    entries = admin.get("/v1/privacy/ledger").json()["data"]
    assert {one["job"] for one in entries} == set(told.json()["arms"][1]["jobs"])


def test_too_many_jobs_are_refused_whole(admin: TestClient, service: FastAPI, dataset: str) -> None:
    before = jobs_of(admin)
    room = service.state.intake._max_open_jobs
    service.state.intake._max_open_jobs = len(before) + 3
    answer = admin.post("/v1/experiments", json=experiment(dataset))
    service.state.intake._max_open_jobs = room
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_open_jobs")
    assert jobs_of(admin) == before


def test_a_key_makes_the_first_answer_come_again(admin: TestClient, dataset: str) -> None:
    headers = {"Idempotency-Key": "once"}
    first = admin.post("/v1/experiments", json=experiment(dataset), headers=headers)
    again = admin.post("/v1/experiments", json=experiment(dataset), headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()


def test_a_cancel_ends_all_of_its_jobs_and_no_other(admin: TestClient, dataset: str) -> None:
    kept = admin.post("/v1/experiments", json=experiment(dataset)).json()
    told = admin.post("/v1/experiments", json=experiment(dataset)).json()
    answer = admin.post(f"/v1/experiments/{told['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert {run["state"] for arm in answer.json()["arms"] for run in arm["runs"]} == {"cancelled"}
    assert admin.get(f"/v1/experiments/{kept['id']}").json()["state"] == "running"
    again = admin.post(f"/v1/experiments/{told['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "wrong_state")
    actions = [entry["action"] for entry in admin.get("/v1/audit").json()["data"]]
    assert "experiment.cancel" in actions


def test_a_viewer_submits_nothing_and_a_stranger_sees_nothing(
    admin: TestClient, client_for: Callable[..., TestClient], dataset: str
) -> None:
    told = admin.post("/v1/experiments", json=experiment(dataset)).json()
    assert client_for(role="viewer").post("/v1/experiments", json=experiment(dataset)).status_code == 403
    stranger = client_for(tenant="other", role="admin")
    assert stranger.get(f"/v1/experiments/{told['id']}").status_code == 404
    assert stranger.post(f"/v1/experiments/{told['id']}/cancel").status_code == 404
    assert stranger.get("/v1/experiments").json()["data"] == []
    assert ("/baseline/dataset", "unknown_dataset") in faults(
        stranger.post("/v1/experiments", json=experiment(dataset))
    )
