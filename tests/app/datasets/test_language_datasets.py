"""Texts and conversations for language models over HTTP, and what a job on them would do."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

CHAT = [{"role": "user", "content": "Two plus two?"}, {"role": "assistant", "content": "Four."}]


def upload(client: TestClient, content: bytes, filename: str, **fields: str) -> Any:
    data = {"task": "causal_lm", **fields}
    return client.post("/v1/datasets", files={"file": (filename, content)}, data=data)


def test_a_plain_text_becomes_rows_without_labels(admin: TestClient) -> None:
    answer = upload(admin, b"One.\n\nTwo,\nand more.\n\nThree.\n", "book.txt")
    made = answer.json()
    assert answer.status_code == 201, made
    assert (made["task"], made["rows"], made["labels"], made["label_counts"]) == ("causal_lm", 3, [], {})
    rows = admin.get(f"/v1/datasets/{made['id']}/preview").json()["rows"]
    assert [row["text"] for row in rows] == ["One.", "Two,\nand more.", "Three."]
    assert "label_name" not in rows[0]


def test_conversations_are_taken_and_their_faults_told_by_line(admin: TestClient) -> None:
    good = json.dumps({"messages": CHAT}) + "\n"
    made = upload(admin, good.encode(), "chat.jsonl").json()
    assert (made["rows"], made["columns"]) == (1, {"text": "messages"})
    bad = good + json.dumps({"messages": CHAT[:1]}) + "\n" + json.dumps({"messages": "hello"}) + "\n"
    answer = upload(admin, bad.encode(), "chat.jsonl")
    assert answer.status_code == 422
    assert [(one["line"], one["code"]) for one in answer.json()["errors"]] == [(2, "no_target"), (3, "wrong_type")]


def test_a_label_column_has_no_use_here(admin: TestClient) -> None:
    answer = upload(admin, b'{"text": "one", "label": 1}\n', "a.jsonl", label_column="label")
    assert answer.status_code == 422
    assert [(one["pointer"], one["code"]) for one in answer.json()["errors"]] == [("/label_column", "not_applicable")]


def test_a_dry_run_tells_plan_and_cost_by_the_configuration_alone(admin: TestClient) -> None:
    made = upload(admin, b"One.\n\nTwo.\n\nThree.\n", "book.txt").json()
    body = {"task": "causal_lm", "model": "smollm2-135m", "dataset": made["id"]}
    answer = admin.post("/v1/jobs?dry_run=true", json=body)
    told = answer.json()
    assert answer.status_code == 200, told
    assert (told["metric"], told["export"]["format"], told["model"]) == ("bits_per_byte", "safetensors", "smollm2-135m")
    assert told["estimate"]["total_steps"] == 3
    assert told["estimate"]["file_bytes"] == pytest.approx(4 * 134_515_008, rel=0.01)
    refused = admin.post("/v1/jobs?dry_run=true", json={**body, "limits": {"min_metric": 0.5}, "model": "minilm-l6"})
    assert refused.status_code == 422
    assert {one["pointer"] for one in refused.json()["errors"]} == {"/limits/min_metric", "/model"}
    assert {"id": "smollm2-135m", "task": "causal_lm", "default_for": "causal_lm"}.items() <= next(
        one for one in admin.get("/v1/models").json()["data"] if one["id"] == "smollm2-135m"
    ).items()
