"""Tiny trained models with all that a job of them hands over, for the tests of what begins with one."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.events import Listed
from engine.interrupt import Interrupt
from engine.kinds import spec_class
from engine.runners import run_any
from tests.engine.documented import undocumented
from tests.engine.tiny import tiny_bert, tiny_image_rows, tiny_pair_rows, tiny_text_rows, write_rows
from tests.engine.tiny_lm import tiny_decoder, tiny_lm_rows

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
    assert undocumented(found) == []
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


def language_parent(folder: Path, instructions: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    """A trained language model; FIFTYTWO_MODELS_DIR must name `folder`/models, whose `tiny-decoder` may be there."""
    if not (folder / "models" / "tiny-decoder").is_dir():
        tiny_decoder(folder / "models" / "tiny-decoder")
    path = write_rows(more.pop("rows", None) or tiny_lm_rows(120), folder / "ds_parent.parquet", "causal_lm", ())
    training = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "max_length": 48, "seed": 5}
    task = {"task": "causal_lm", "model": "tiny-decoder", "training": training}
    return _parent(folder, {**task, "dataset": str(path), "instructions": list(instructions), **more})


def pair_parent(folder: Path, instructions: Sequence[Any] = ()) -> dict[str, Any]:
    """A trained dual encoder; `engine.models._packaged` must give a tiny BERT."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_rows(tiny_pair_rows(240), folder / "ds_parent.parquet", "text_image_pairs", ())
    training = {**TRAINING, "batch_size": 32}
    task = {"task": "text_image_pairs", "training": training}
    return _parent(folder, {**task, "dataset": str(path), "instructions": list(instructions)})


def files_of(folder: Path) -> dict[str, str]:
    """What a job has left for the `parent` of another."""
    outputs = folder / "outputs"
    return {"package": str(outputs / "model.zip"), "checkpoint": str(outputs / "checkpoint.zip")}


def unpacked(archive: Path, folder: Path) -> Path:
    """A folder with what an archive holds."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def _parent(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    run_job(spec, folder / "train", "job_parent")
    return {"job": "job_parent", **files_of(folder / "train"), "spec": spec}
