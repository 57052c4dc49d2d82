"""Tiny trained models with all that a job of them hands over, for the tests of what begins with one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.events import Listed
from engine.interrupt import Interrupt
from engine.kinds import spec_class
from engine.runners import run_any
from tests.engine.tiny import tiny_bert, tiny_image_rows, tiny_text_rows, write_rows

TRAINING = {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3, "max_length": 32, "seed": 5}


def run_job(body: dict[str, Any], folder: Path, job: str = "job_child") -> list[Any]:
    """Run a job file; the events."""
    folder.mkdir(parents=True, exist_ok=True)
    sink = Listed()
    run_any(spec_class(body).model_validate(body), folder, sink, job=job, interrupt=Interrupt())
    return sink.events


def receipt_of(folder: Path) -> dict[str, Any]:
    """The receipt that a job has left."""
    found: dict[str, Any] = json.loads((folder / "outputs" / "receipt.json").read_bytes())
    return found


def text_parent(folder: Path, instructions: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    """A trained text model, as the `parent` of a job file; FIFTYTWO_MODELS_DIR must name `folder`/models."""
    tiny_bert(folder / "models" / "tiny-bert")
    path = write_rows(tiny_text_rows(200), folder / "ds_parent.parquet", "text_classification")
    task = {"task": "text_classification", "model": "tiny-bert", "training": TRAINING}
    return _parent(folder, {**task, "dataset": str(path), "instructions": list(instructions), **more})


def image_parent(folder: Path, instructions: Sequence[Any] = ()) -> dict[str, Any]:
    """A trained picture model."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_rows(tiny_image_rows(120), folder / "ds_parent.parquet", "image_classification")
    task = {"task": "image_classification", "training": {**TRAINING, "epochs": 3}}
    return _parent(folder, {**task, "dataset": str(path), "instructions": list(instructions)})


def _parent(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    run_job(spec, folder / "train", "job_parent")
    outputs = folder / "train" / "outputs"
    files = {"package": str(outputs / "model.zip"), "checkpoint": str(outputs / "checkpoint.zip")}
    return {"job": "job_parent", **files, "spec": spec}
