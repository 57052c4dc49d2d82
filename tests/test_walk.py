"""From a request to a downloaded model: the real server, worker and engine, driven over HTTP alone.

The answers of the downloaded file are checked by a stranger's lines of onnxruntime, which know nothing of this project.
"""

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tokenizers import Tokenizer

from tests.engine.tiny import LABELS, tiny_bert, tiny_image_rows, tiny_texts

TEXT_PLAN = [1, 11, 20, 22, {"number": 24, "steps": 2}, {"number": 45, "ratio": 0.25}, 49, 51]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a whole server, whose models folder holds a tiny encoder."""
    folder = tmp_path_factory.mktemp("walk")
    tiny_bert(folder / "models" / "tiny-bert", hidden=64)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYTWO_")}
    environment = {**kept, "FIFTYTWO_MODELS_DIR": str(folder / "models"), "FIFTYTWO_BOOTSTRAP_KEY": "walk-" + "k" * 32}
    command = [sys.executable, "-m", "client.cli", "serve", "--json", "--port", "0", "--data-dir", str(folder / "data")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
    assert server.stdout is not None
    address = next((facts["address"] for line in server.stdout if "address" in (facts := json.loads(line))), None)
    assert address, (folder / "log").read_text()
    key = {"Authorization": f"Bearer {environment['FIFTYTWO_BOOTSTRAP_KEY']}"}
    with httpx.Client(base_url=address, headers=key, timeout=90) as made:
        yield made
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    server.stdout.close()


def uploaded(client: httpx.Client, name: str, content: bytes, task: str) -> Json:
    answer = client.post("/v1/datasets", files={"file": (name, content)}, data={"task": task})
    assert answer.status_code == 201, answer.text
    dataset: Json = answer.json()
    assert dataset["status"] == "ready"
    return dataset


def run(client: httpx.Client, body: Json) -> Json:
    """Submit and wait for the end."""
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job: Json = answer.json()
    while job["finished_at"] is None:
        job = client.get(f"/v1/jobs/{job['id']}", params={"wait_seconds": 60}).raise_for_status().json()
    return job


def downloaded(client: httpx.Client, job: Json, folder: Path) -> Json:
    """The model of a job, unpacked into a folder; gives its receipt."""
    artifacts = {one["kind"]: one for one in job["artifacts"]}
    assert set(artifacts) >= {"model", "checkpoint", "receipt"}
    content = client.get(artifacts["model"]["url"]).raise_for_status().content
    assert len(content) == artifacts["model"]["size_bytes"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert not any("/" in name for name in archive.namelist())
        archive.extractall(folder)
    receipt: Json = client.get(job["receipt_url"]).raise_for_status().json()
    assert json.loads((folder / "receipt.json").read_text()) == receipt
    assert sum(one["size_bytes"] for one in receipt["files"]) == receipt["size"]["package_bytes"]
    assert {one["path"] for one in receipt["files"]} == {path.name for path in folder.iterdir()} - {"receipt.json"}
    return receipt


def lines(texts: Sequence[str], labels: Sequence[int]) -> bytes:
    rows = ({"text": text, "label": LABELS[label]} for text, label in zip(texts, labels, strict=True))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def texts(client: httpx.Client) -> Json:
    """Three uploads, a file a split."""
    ids = {}
    for seed, (split, count) in enumerate({"train": 480, "valid": 40, "test": 120}.items()):
        ids[split] = uploaded(client, f"{split}.jsonl", lines(*tiny_texts(count, seed)), "text_classification")["id"]
    return ids


@pytest.fixture(scope="module")
def text_job(client: httpx.Client, texts: Json) -> Json:
    """A job over most kinds of hook, run to its end."""
    body = {
        "task": "text_classification",
        "model": "tiny-bert",
        "dataset": texts,
        "instructions": TEXT_PLAN,
        "training": {"epochs": 8, "batch_size": 16, "learning_rate": 3e-3, "max_length": 32},
        "limits": {"max_metric_loss": 0.05, "min_metric": 0.9},
    }
    job = run(client, body)
    assert job["state"] == "succeeded", job["error"]
    return job


def test_the_receipt_of_a_text_job_agrees_with_a_strangers_code(
    client: httpx.Client, text_job: Json, tmp_path: Path
) -> None:
    receipt = downloaded(client, text_job, tmp_path)
    # The stranger's lines.
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(json.loads((tmp_path / "config.json").read_text())["max_length"])
    names = json.loads((tmp_path / "labels.json").read_text())
    tested, truth = tiny_texts(120, seed=2)
    answers = []
    for text in tested:
        encoding = tokenizer.encode(text)
        inputs = {"input_ids": np.array([encoding.ids]), "attention_mask": np.array([encoding.attention_mask])}
        answers.append(names[int(session.run(["logits"], inputs)[0].argmax())])
    accuracy = float(np.mean([answer == LABELS[label] for answer, label in zip(answers, truth, strict=True)]))
    assert accuracy == pytest.approx(receipt["quality"]["exported"]["value"], abs=0.005)
    assert accuracy >= 0.9
    assert receipt["quality"]["exported"]["n"] == 120


def test_the_plan_shows_pruning_before_fake_quantisation(text_job: Json) -> None:
    numbers = [one["number"] for one in text_job["plan"]]
    assert sorted(numbers) == [1, 11, 20, 22, 24, 45, 49, 51]
    assert numbers.index(45) < numbers.index(49) < numbers.index(51)


def test_the_file_holds_integers_and_is_smaller(client: httpx.Client, text_job: Json) -> None:
    receipt = client.get(text_job["receipt_url"]).json()
    assert receipt["size"]["exported_bytes"] < receipt["size"]["reference_bytes"]
    assert receipt["size"]["parameters"]["exported"] < receipt["size"]["parameters"]["reference"]
    assert [one["name"] for one in receipt["ladder"]] == ["untrained", "structured_pruning", "trained"]
    whole, cut, trained = (one["bytes"] for one in receipt["ladder"])
    assert whole > trained > cut, "the ranges of activations are bytes too"
    assert {one["name"]: one["outcome"] for one in receipt["limits"]["checks"]} == {
        "max_metric_loss": "passed",
        "min_metric": "passed",
        "smaller_file": "passed",
    }


def test_metrics_and_events_of_a_job_are_kept(client: httpx.Client, text_job: Json) -> None:
    series = client.get(f"/v1/jobs/{text_job['id']}/metrics").json()
    assert len(series["train_loss"]) == text_job["progress"]["total_steps"] == 8 * 15
    assert [point["step"] for point in series["train_loss"]] == list(range(1, 121))
    assert len(series["valid_score"]) == 8
    few = client.get(f"/v1/jobs/{text_job['id']}/metrics", params={"names": "train_loss", "max_points": 10}).json()
    assert list(few) == ["train_loss"]
    assert len(few["train_loss"]) == 10
    events = client.get(f"/v1/jobs/{text_job['id']}/events").json()
    kinds = [event["type"] for event in events["data"]]
    assert kinds.index("phase_started") < kinds.index("file_written")


def test_a_limit_that_is_missed_fails_the_job_and_keeps_its_files(
    client: httpx.Client, text_job: Json, tmp_path: Path
) -> None:
    """The same training once more under other limits: the bytes are the same, its ending is not."""
    same = {name: text_job[name] for name in ("task", "model", "dataset", "instructions", "training")}
    job = run(client, same | {"limits": {"max_size_bytes": 1000, "max_size_ratio": 0.001}})
    first, second = (
        next(one["sha256"] for one in each["artifacts"] if one["kind"] == "checkpoint") for each in (text_job, job)
    )
    assert first == second
    assert (job["state"], job["error"]["code"]) == ("failed", "limit_missed")
    told = {fault["pointer"]: fault["detail"] for fault in job["error"]["errors"]}
    assert set(told) == {"/limits/max_size_bytes", "/limits/max_size_ratio"}
    receipt = downloaded(client, job, tmp_path)
    assert str(receipt["size"]["exported_bytes"]) in told["/limits/max_size_bytes"].replace(",", "")
    assert not receipt["limits"]["passed"]


def test_an_image_job_agrees_with_a_strangers_code(client: httpx.Client, tmp_path: Path) -> None:
    rows = tiny_image_rows(200, size=16)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (payload, label, split) in enumerate(zip(rows.payloads, rows.labels, rows.splits, strict=True)):
            assert isinstance(payload, bytes)
            archive.writestr(f"{split}/{LABELS[int(label)]}/{number}.png", payload)
    dataset = uploaded(client, "pictures.zip", buffer.getvalue(), "image_classification")
    assert dataset["splits"] == {"train": 160, "valid": 20, "test": 20}
    body = {
        "task": "image_classification",
        "dataset": dataset["id"],
        "instructions": [3, 22, {"number": 45, "recovery_steps": 10}, 47],
        "training": {"epochs": 3, "learning_rate": 2e-3},
    }
    job = run(client, body)
    assert job["state"] == "succeeded", job["error"]
    receipt = downloaded(client, job, tmp_path)
    # The stranger's lines.
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    about = json.loads((tmp_path / "preprocessor_config.json").read_text())
    mean, std = (np.array(about[name], np.float32).reshape(1, -1, 1, 1) for name in ("image_mean", "image_std"))
    names = json.loads((tmp_path / "labels.json").read_text())
    right = []
    for payload, label, split in zip(rows.payloads, rows.labels, rows.splits, strict=True):
        if split == "test":
            assert isinstance(payload, bytes)
            pixels = np.asarray(Image.open(io.BytesIO(payload)))
            values = (pixels[None, None].astype(np.float32) * np.float32(about["rescale_factor"]) - mean) / std
            right.append(
                names[int(session.run(["logits"], {"pixel_values": values})[0].argmax())] == LABELS[int(label)]
            )
    assert float(np.mean(right)) == pytest.approx(receipt["quality"]["exported"]["value"], abs=0.005)
    assert client.get(f"/v1/jobs/{job['id']}/metrics", params={"names": "train_loss"}).json()["train_loss"]


def test_a_trained_model_is_compressed_and_evaluated(client: httpx.Client, text_job: Json, tmp_path: Path) -> None:
    plan = [{"name": "post_training_quantization", "scheme": "dynamic_int8"}]
    smaller = run(client, {"kind": "compress", "model": text_job["id"], "instructions": plan})
    assert smaller["state"] == "succeeded", smaller["error"]
    receipt = downloaded(client, smaller, tmp_path)
    parent = client.get(text_job["receipt_url"]).json()
    assert receipt["quality"]["reference"]["n"] == parent["quality"]["exported"]["n"] == 120
    assert receipt["size"]["exported_bytes"] < receipt["size"]["reference_bytes"]
    model = next(one["id"] for one in smaller["artifacts"] if one["kind"] == "model")
    judged = run(client, {"kind": "evaluate", "model": model, "limits": {"min_metric": 0.5}})
    assert judged["state"] == "succeeded", judged["error"]
    assert {one["kind"] for one in judged["artifacts"]} == {"receipt"}
    told = client.get(judged["receipt_url"]).json()
    assert told["quality"]["exported"]["value"] == receipt["quality"]["exported"]["value"]
    assert judged["result"]["quality"]["n"] == 120
    assert set(told["quality"]["classes"]) == set(LABELS)
