"""Evaluating and compressing language models and pairs over HTTP: what is taken, and what is refused at submit."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from worker.tasks import Worker

MakeDataset = Callable[..., str]
Json = dict[str, Any]
COLUMNS: dict[str, Json] = {
    "causal_lm": {"columns": {"text": "string"}, "labels": [], "label_counts": {}},
    "text_image_pairs": {"columns": {"text": "string", "image": "binary"}, "labels": [], "label_counts": {}},
}


@pytest.fixture
def trained(request: pytest.FixtureRequest, admin: TestClient, dataset: MakeDataset, worker: Worker) -> tuple[str, str]:
    """The job that has trained a model of the task that the test names, and its data set."""
    task = request.param
    rows = dataset(task=task, **COLUMNS[task])
    job = admin.post("/v1/jobs", json={"task": task, "dataset": rows}).json()
    worker.run_next()
    assert admin.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    return job["id"], rows


def outcome(admin: TestClient, body: Json) -> Json:
    """The job, or code by pointer."""
    answer = admin.post("/v1/jobs", json=body)
    if answer.status_code == 202:
        job: Json = answer.json()
        return job
    assert answer.status_code == 422, answer.text
    assert all(fault["remedy"] for fault in answer.json()["errors"])
    return {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}


@pytest.mark.parametrize("trained", ["causal_lm"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"instructions": [45]}, {"/instructions/0": "wrong_task"}),
        ({"instructions": [47]}, {"/instructions/0": "wrong_task"}),
        ({"instructions": []}, {"/instructions": "nothing_to_do"}),
        (
            {"instructions": [{"number": 48, "keep_characters": False}]},
            {"/instructions/0/keep_characters": "cannot_trim"},
        ),
        ({"export": {"format": "onnx"}}, {"/export": "wrong_format"}),
        (
            {"limits": {"min_agreement": 0.9, "min_metric": 1.0}},
            {"/limits/min_agreement": "wrong_limit", "/limits/min_metric": "wrong_limit"},
        ),
        ({"metric": "accuracy"}, {"/metric": "wrong_metric"}),
    ],
)
def test_a_wrong_compression_of_a_language_model(
    admin: TestClient, trained: tuple[str, str], changes: Json, expected: dict[str, str]
) -> None:
    model, rows = trained
    body = {"kind": "compress", "model": model, "dataset": rows, "instructions": [48]} | changes
    assert outcome(admin, body) == expected


@pytest.mark.parametrize("trained", ["causal_lm"], indirect=True)
def test_a_language_model_is_compressed_and_evaluated(admin: TestClient, trained: tuple[str, str]) -> None:
    model, rows = trained
    narrow = {"kind": "compress", "model": model, "export": {"format": "gguf", "number": "q8_0"}}
    assert outcome(admin, narrow)["plan"] == []
    plan = outcome(admin, narrow | {"dataset": rows, "instructions": [43, 48]})["plan"]
    assert [step["number"] for step in plan] == [43, 48]
    assert outcome(admin, narrow | {"instructions": [43]}) == {"/instructions/0": "needs_rows"}
    judged = outcome(admin, {"kind": "evaluate", "model": model, "limits": {"max_metric_loss": 0.1}})
    assert (judged["task"], judged["metric"]) == ("causal_lm", "bits_per_byte")


@pytest.mark.parametrize("trained", ["text_image_pairs"], indirect=True)
def test_a_model_of_pairs_is_compressed_and_evaluated(admin: TestClient, trained: tuple[str, str]) -> None:
    model, rows = trained
    body = {"kind": "compress", "model": model, "dataset": rows}
    plan = outcome(admin, body | {"instructions": [43, 45, 47, 48]})["plan"]
    assert [step["number"] for step in plan] == [43, 45, 48, 47]
    assert outcome(admin, body | {"instructions": [43]}) == {"/instructions/0": "missing_need"}
    dynamic = {"number": 47, "scheme": "dynamic_int8"}
    assert outcome(admin, body | {"instructions": [dynamic]}) == {"/instructions/0/scheme": "no_such_format"}
    judged = outcome(admin, {"kind": "evaluate", "model": model, "metric": "recall_at_1"})
    assert (judged["task"], judged["metric"]) == ("text_image_pairs", "recall_at_1")
