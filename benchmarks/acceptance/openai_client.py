"""The unmodified `openai` client on SMS spam as conversations: files whole and in parts, a wrong line, a whole job.

Knows no other step and none of this project's own client.
"""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import openai

from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import Walk
from benchmarks.machine import has_bf16
from benchmarks.servers import KEY
from benchmarks.shared_data import rows

_ROWS = {"train": 300, "test": 60}
_TINY = {"train": 12, "test": 4}
_PARTS = 3
_WRONG = 3
"""The line of the wrong file that is no conversation, counted from one."""


def conversations(split: str, most: int) -> Iterator[str]:
    """Lines of chat JSONL: a message, and what it is."""
    for row in rows("sms_spam", split, most):
        turns = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label_name"]}]
        yield json.dumps({"messages": turns})


def walk(place: Walk) -> Iterator[Finding]:
    """A file whole, a file in parts, one that is wrong; then a job, its events and checkpoints, and its model."""
    client, folder = openai.OpenAI(base_url=f"{place.client.server}/v1", api_key=KEY), place.scratch("openai")
    most = _TINY if place.quick else _ROWS
    whole = _written(folder / "train.jsonl", conversations("train", most["train"]))
    beside = _written(folder / "test.jsonl", conversations("test", most["test"]))
    sent = client.files.create(file=whole, purpose="fine-tune")
    size = -(-beside.stat().st_size // _PARTS)
    parts = client.uploads.upload_file_chunked(file=beside, mime_type="text/jsonl", purpose="fine-tune", part_size=size)
    read = [client.files.wait_for_processing(one.id).status for one in (sent, parts.file) if one is not None]
    came: dict[str, Any] = {"files": read, "upload": parts.status, "parts": _PARTS}
    yield Finding("chat JSONL as a file, and as a file in parts", None, came, read == ["processed"] * 2)
    yield _wrong(client, folder)
    assert parts.file is not None
    yield from _job(place, client, sent.id, parts.file.id)


def _written(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _wrong(client: openai.OpenAI, folder: Path) -> Finding:
    """A line that is no JSON: told by its number through the client's exception."""
    lines = list(conversations("train", 5))
    lines[_WRONG - 1] = "{"
    try:
        client.files.create(file=_written(folder / "wrong.jsonl", lines), purpose="fine-tune")
    except openai.APIStatusError as error:
        said = {"exception": type(error).__name__, "message": error.message}
        return Finding(
            "a wrong file's line is named by the client's exception", None, said, f"{_WRONG}" in error.message
        )
    return Finding("a wrong file's line is named by the client's exception", None, {"exception": None}, held=False)


def _job(place: Walk, client: openai.OpenAI, training_file: str, validation_file: str) -> Iterator[Finding]:
    training: dict[str, Any] = {"max_steps": 24, "max_length": 128, "batch_size": 4}
    chosen: dict[str, Any] = {
        "instructions": ["sequence_packing", "low_rank_adaptation", *(["autocast"] if has_bf16() else [])],
        "training": {"max_steps": 1, "max_length": 64, "batch_size": 1} if place.quick else training,
    }
    asked = {"model": "smollm2-135m", "training_file": training_file, "validation_file": validation_file}
    job = client.fine_tuning.jobs.create(**asked, suffix="spam", extra_body=chosen)  # type: ignore[arg-type]
    while job.status in ("validating_files", "queued", "running"):
        time.sleep(2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    models = [one.id for one in client.models.list()]
    came = {
        "status": job.status,
        "model": job.fine_tuned_model,
        "events": len(events),
        "of them metrics": sum(one.type == "metrics" for one in events),
        "checkpoints at steps": [one.step_number for one in checkpoints],
        "result files": len(job.result_files),
    }
    found = job.fine_tuned_model in models and bool(events) and bool(checkpoints)
    yield Finding(
        "a job with `extra_body` succeeds; its events, checkpoints and model are listed",
        {**asked, "suffix": "spam", "extra_body": chosen},
        came,
        job.status == "succeeded" and found,
    )


STEP = Step(
    "openai",
    "OpenAI's client, unmodified",
    "an unmodified `openai` client uploads SMS spam, creates a job, lists events and checkpoints, and finds the model",
    walk,
)
