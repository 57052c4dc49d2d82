"""What a wrong job gets, as a table: each field's wrong value and kind, unknown names, choices that do not go together.

Every refusal is a problem with pointer, code and remedy; nothing is stored; the next sound request is served.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.database import Base

MakeDataset = Callable[..., str]
SPLITS = {"train": 80, "valid": 10, "test": 10}


def rows(service: FastAPI) -> dict[str, int]:
    """How many rows each table has."""
    with service.state.database.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def refused(client: TestClient, service: FastAPI, body: Any) -> list[tuple[str, str, str]]:
    """Pointer, code and remedy of each fault; nothing may have been stored."""
    before = rows(service)
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert rows(service) == before
    faults = answer.json()["errors"]
    assert faults
    assert all(fault["code"] and fault["detail"] and fault["remedy"] for fault in faults), faults
    return [(fault["pointer"], fault["code"], fault["remedy"]) for fault in faults]


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"kind": 1}, "/kind", "literal_error"),
        ({"metric": []}, "/metric", "literal_error"),
        ({"metric": {}}, "/metric", "literal_error"),
        ({"task": None}, "/task", "literal_error"),
        ({"task": "causal_lm"}, "/dataset", "wrong_task"),
        ({"model": ""}, "/model", "string_too_short"),
        ({"model": "../../etc"}, "/model", "unknown_model"),
        ({"model": ["minilm-l6"]}, "/model", "string_type"),
        ({"dataset": None}, "/dataset", "string_type"),
        ({"dataset": "../rows.parquet"}, "/dataset", "unknown_dataset"),
        ({"dataset": {"test": "ds_1"}}, "/dataset/train", "missing"),
        ({"instructions": {"1": {}}}, "/instructions", "tuple_type"),
        ({"instructions": [1.5]}, "/instructions/0", "unknown_instruction"),
        ({"instructions": [10**400]}, "/instructions/0", "unknown_instruction"),
        ({"instructions": ["²"]}, "/instructions/0", "unknown_instruction"),
        ({"instructions": ["9" * 5_000]}, "/instructions/0", "unknown_instruction"),
        ({"instructions": [None]}, "/instructions/0", "unknown_instruction"),
        ({"instructions": [[1]]}, "/instructions/0", "unknown_instruction"),
        ({"instructions": [1] * 53}, "/instructions", "too_long"),
        ({"instructions": [{"name": "structured_pruning", "ratio": None}]}, "/instructions/0/ratio", "float_type"),
        ({"metric": "f1"}, "/metric", "literal_error"),
        ({"training": {"epochs": 1001}}, "/training/epochs", "less_than_equal"),
        ({"training": {"batch_size": 65_537}}, "/training/batch_size", "less_than_equal"),
        ({"training": {"learning_rate": 0}}, "/training/learning_rate", "greater_than"),
        ({"training": {"learning_rate": 10**400}}, "/training/learning_rate", "float_type"),
        ({"training": {"max_length": 131_073}}, "/training/max_length", "less_than_equal"),
        ({"training": {"seed": -1}}, "/training/seed", "greater_than_equal"),
        ({"training": {"seed": 10**400}}, "/training/seed", "less_than"),
        ({"training": {"max_steps": 0}}, "/training/max_steps", "greater_than_equal"),
        ({"training": {"max_seconds": -1}}, "/training/max_seconds", "greater_than"),
        ({"training": {"optimizer": "sgd"}}, "/training/optimizer", "literal_error"),
        ({"training": {"keep": "first"}}, "/training/keep", "literal_error"),
        ({"training": None}, "/training", "model_type"),
        ({"limits": {"min_metric": -0.1}}, "/limits/min_metric", "greater_than_equal"),
        ({"limits": {"min_speedup": True}}, "/limits/min_speedup", "float_type"),
        ({"limits": {"max_size_bytes": 0}}, "/limits/max_size_bytes", "greater_than"),
        ({"limits": {"max_epsilon": 3}}, "/limits/max_epsilon", "not_applicable"),
        ({"limits": {"min_robust_score": 0.5}}, "/limits/min_robust_score", "not_applicable"),
        ({"limits": {"min_robust_score": 0.5}, "instructions": [31]}, "/limits/min_robust_score", "not_applicable"),
        ({"limits": {"confidence": 0.95, "max_size_ratio": 0.5}}, "/limits/confidence", "not_applicable"),
        ({"export": {"format": "tar"}}, "/export/format", "literal_error"),
        ({"export": {"format": "gguf"}}, "/export", "wrong_format"),
        ({"metric": "bits_per_byte"}, "/metric", "wrong_metric"),
        ({"compare": "none"}, "/compare", "literal_error"),
        ({"include_inputs": 1}, "/include_inputs", "bool_type"),
        ({"answers": 1}, "/answers", "bool_type"),
        ({"answers": "all"}, "/answers", "bool_type"),
        ({"auto_start": "maybe"}, "/auto_start", "bool_type"),
        ({"name": "n" * 201}, "/name", "string_too_long"),
        ({"name": "a\x1b[2Jb"}, "/name", "control_character"),
        ({"name": "a\x9bb"}, "/name", "control_character"),
        ({"metadata": {"k\n": "x"}}, "/metadata/k\n", "control_character"),
        ({"metadata": {"k": "x\x7f"}}, "/metadata/k", "control_character"),
        ({"metadata": []}, "/metadata", "dict_type"),
        ({"metadata": {"": "x"}}, "/metadata/", "string_too_short"),
        ({"metadata": {"k" * 65: "x"}}, "/metadata/" + "k" * 65, "string_too_long"),
    ],
)
def test_a_wrong_value_or_kind(
    admin: TestClient,
    service: FastAPI,
    dataset: MakeDataset,
    changes: dict[str, Any],
    pointer: str,
    code: str,
) -> None:
    body = {"task": "text_classification", "dataset": dataset()} | changes
    found = refused(admin, service, body)
    assert (pointer, code) in [(where, what) for where, what, _ in found], found


@pytest.mark.parametrize(
    ("changes", "pointer", "near"),
    [
        ({"instrutions": [1]}, "/instrutions", "instructions"),
        ({"training": {"epoch": 1}}, "/training/epoch", "epochs"),
        ({"limits": {"max_size": 1}}, "/limits/max_size", "max_size_"),
        ({"export": {"formt": "onnx"}}, "/export/formt", "format"),
        ({"instructions": ["post_training_quantisation"]}, "/instructions/0", "post_training_quantization"),
        ({"instructions": [{"name": "autocst"}]}, "/instructions/0", "autocast"),
        ({"instructions": [{"number": 45, "ratoi": 0.2}]}, "/instructions/0/ratoi", "ratio"),
    ],
)
def test_an_unknown_name_gets_the_nearest(
    admin: TestClient, service: FastAPI, dataset: MakeDataset, changes: dict[str, Any], pointer: str, near: str
) -> None:
    found = refused(admin, service, {"task": "text_classification", "dataset": dataset()} | changes)
    assert [where for where, _, _ in found] == [pointer]
    assert f"did you mean {near}" in found[0][2]


@pytest.mark.parametrize(
    ("instructions", "columns", "code"),
    [
        ([9], {"splits": SPLITS}, "excluded"),
        ([{"number": 9, "group": "author"}], {}, "group_missing"),
        ([{"number": 9, "group": "author"}], {"columns": {"text": "text", "group": "writer"}}, "group_missing"),
        ([11, 3], {}, "excluded"),
        ([28], {}, "missing_need"),
        ([26, 28], {}, "missing_need"),
        ([{"number": 26, "dtype": "float16"}], {}, "missing_need"),
        ([51], {}, "missing_need"),
        ([49, 47], {}, None),
        ([1, 1], {}, "repeated_instruction"),
        ([1, "text_normalization"], {}, "repeated_instruction"),
        ([{"number": 45, "name": "autocast"}], {}, "number_and_name_differ"),
    ],
)
def test_instructions_that_do_not_go_together(
    admin: TestClient,
    service: FastAPI,
    dataset: MakeDataset,
    instructions: list[Any],
    columns: dict[str, Any],
    code: str | None,
) -> None:
    body = {"task": "text_classification", "dataset": dataset(**columns), "instructions": instructions}
    found = refused(admin, service, body)
    assert all(pointer.startswith("/instructions/") for pointer, _, _ in found)
    assert code is None or code in {what for _, what, _ in found}, found


@pytest.mark.parametrize("limits", [{"min_speedup": 1.0}, {"min_robust_score": 0.5}])
def test_every_figure_that_has_an_interval_may_be_decided_by_it(
    admin: TestClient, dataset: MakeDataset, limits: dict[str, float]
) -> None:
    body = {"task": "text_classification", "dataset": dataset(), "instructions": [36]}
    answer = admin.post("/v1/jobs?dry_run=true", json={**body, "limits": {**limits, "confidence": 0.95}})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("number", [1, 11])
def test_an_instruction_of_another_task(admin: TestClient, service: FastAPI, dataset: MakeDataset, number: int) -> None:
    images = dataset(task="image_classification", columns={"image": "binary", "label": "int32"})
    body = {"task": "image_classification", "dataset": images, "instructions": [number]}
    assert ("/instructions/0", "wrong_task") in [fault[:2] for fault in refused(admin, service, body)]


def test_faults_of_every_layer_at_once(admin: TestClient, service: FastAPI, dataset: MakeDataset) -> None:
    body = {
        "task": "text_classification",
        "dataset": dataset(splits=SPLITS),
        "instructions": [9, 11, 3, 28, 11],
        "model": "resnet-small",
        "limits": {"max_epsilon": 1, "confidence": 0.9},
        "training": {"epochs": 0},
        "colour": "red",
    }
    found = {(pointer, code) for pointer, code, _ in refused(admin, service, body)}
    assert {
        ("/training/epochs", "greater_than_equal"),
        ("/colour", "unknown_field"),
        ("/model", "wrong_task"),
        ("/instructions/0", "excluded"),
        ("/instructions/1", "excluded"),
        ("/instructions/3", "missing_need"),
        ("/instructions/4", "repeated_instruction"),
        ("/limits/max_epsilon", "not_applicable"),
        ("/limits/confidence", "not_applicable"),
    } <= found


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_all_but_the_data_can_be_checked_before_an_upload(admin: TestClient, dry_run: str) -> None:
    body = {"task": "text_classification", "instructions": [1, {"number": 9, "group": "author"}]}
    for more, codes in (({}, {"missing"}), ({"instructions": [28]}, {"missing", "missing_need"})):
        answer = admin.post("/v1/jobs", json=body | more, params={"dry_run": dry_run})
        assert answer.status_code == 422
        found = [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]
        assert ("/dataset", "missing") in found
        assert {code for _, code in found} == codes


SOUND = '{"task": "text_classification", "dataset": "DATASET"'


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (SOUND.encode(), 400),
        (f"{SOUND}}}".encode("utf-16"), 400),
        (f"{SOUND}}}".encode("utf-16-le"), 400),
        (f'{SOUND}, "name": "'.encode() + b'\xed\xa0\x80"}', 400),
        (f'{SOUND}, "name": "'.encode() + b'\xff"}', 400),
        (f'{SOUND}, "training": {{"learning_rate": NaN}}}}'.encode(), 422),
        (f'{SOUND}, "limits": {{"min_speedup": Infinity}}}}'.encode(), 422),
        (f'{SOUND}, "limits": {{"min_speedup": 1e999}}}}'.encode(), 422),
        (f'{SOUND}, "training": {{"seed": {"9" * 10_000}}}}}'.encode(), (400, 422)),
        (f'{SOUND}, "name": "\\ud800"}}'.encode(), 422),
        (f'{SOUND}, "metadata": {{"\\udfff": "x"}}}}'.encode(), 422),
        (f'{SOUND}, "name": "a\\u0000b"}}'.encode(), 422),
        (f'{SOUND}, "task": "image_classification", "task": "translation"}}'.encode(), 422),
        (f'{SOUND}, "name": {"[" * 100_000}'.encode(), 400),
        (f'{SOUND}, "name": {"[" * 400_000}{"]" * 400_000}}}'.encode(), (400, 422)),
        (f'{SOUND}, "name": {"[" * 2_500_000}{"]" * 2_500_000}}}'.encode(), 413),
        (f'{SOUND}, "name": "{"x" * 1_000_000}"}}'.encode(), 413),
        (b"", 422),
        (b"[[]]", 422),
        (b"7", 422),
    ],
)
def test_bodies_that_are_hard_to_read(
    admin: TestClient, service: FastAPI, dataset: MakeDataset, content: bytes, status: int | tuple[int, ...]
) -> None:
    ds = dataset()
    before = rows(service)
    content = content.replace(b"DATASET", ds.encode())
    answer = admin.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert len(answer.content) < 20_000
    assert rows(service) == before
    sound = {"task": "text_classification", "dataset": ds, "auto_start": False}
    assert admin.post("/v1/jobs", json=sound).status_code == 202


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=b"])
def test_another_content_type(admin: TestClient, service: FastAPI, dataset: MakeDataset, kind: str) -> None:
    before = rows(service)
    body = json.dumps({"task": "text_classification", "dataset": "ds_1"})
    answer = admin.post("/v1/jobs", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert rows(service) == before
