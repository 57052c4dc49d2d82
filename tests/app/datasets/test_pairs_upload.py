"""Pairs of text and picture over HTTP: from the upload to the plan of a job."""

import base64
from typing import Any

from fastapi.testclient import TestClient

from tests.engine.ingest.test_ingest_images import picture, zipped
from tests.engine.ingest.test_ingest_pairs import PICTURES, SPLITS, lines, row


def upload(client: TestClient, content: bytes, **fields: str) -> Any:
    data = {"task": "text_image_pairs", **fields}
    return client.post("/v1/datasets", files={"file": ("pairs.zip", content)}, data=data)


def test_pairs_are_stored_shown_and_planned(admin: TestClient) -> None:
    made = upload(admin, zipped({**PICTURES, **SPLITS})).json()
    assert (made["status"], made["rows"], made["labels"]) == ("ready", 6, [])
    assert made["splits"] == {"train": 3, "valid": 1, "test": 2}
    assert made["columns"] == {"text": "text", "image": "image"}

    first = admin.get(f"/v1/datasets/{made['id']}/preview", params={"rows": 1}).json()["rows"][0]
    assert first["text"] == "picture 0"
    assert base64.b64decode(first["image"]) == PICTURES["images/0.png"]
    assert "label" not in first

    body = {"task": "text_image_pairs", "dataset": made["id"], "instructions": [7, 11]}
    planned = admin.post("/v1/jobs?dry_run=true", json=body)
    assert planned.status_code == 200
    assert [one["name"] for one in planned.json()["plan"]] == ["multimodal_alignment", "length_bucketing"]
    assert planned.json()["estimate"]["file_bytes"] > 80_000_000
    resolved = admin.post("/v1/jobs", json={**body, "auto_start": False}).json()
    assert (resolved["model"], resolved["metric"]) == ("pair-encoder", "recall_at_10")
    assert resolved["training"]["learning_rate"] == 1e-3


def test_a_bad_pair_is_refused_with_its_line(admin: TestClient) -> None:
    content = zipped({**PICTURES, "train.jsonl": lines(row(0), {"image": "images/9.png", "text": "nowhere"})})
    answer = upload(admin, content)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["code"], fault["line"]) == ("image_not_found", 2)
    outside = upload(admin, zipped({**PICTURES, **SPLITS, "../x.png": picture()}))
    assert outside.json()["errors"][0]["code"] == "unsafe_path"


def test_what_does_not_serve_pairs_is_refused_with_the_reason(admin: TestClient) -> None:
    made = upload(admin, zipped({**PICTURES, **SPLITS})).json()
    body = {"task": "text_image_pairs", "dataset": made["id"], "instructions": [24], "metric": "accuracy"}
    answer = admin.post("/v1/jobs?dry_run=true", json=body)
    assert answer.status_code == 422
    assert {fault["code"] for fault in answer.json()["errors"]} >= {"wrong_metric"}
    only = admin.post("/v1/jobs?dry_run=true", json={**body, "metric": "recall_at_1"})
    assert [fault["code"] for fault in only.json()["errors"]] == ["wrong_task"]
    other = admin.post("/v1/jobs?dry_run=true", json={**body, "metric": None, "instructions": [], "model": "minilm-l6"})
    assert [fault["code"] for fault in other.json()["errors"]] == ["wrong_task"]
