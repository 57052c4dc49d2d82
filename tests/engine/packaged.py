"""The package of a trained tiny run, as an auditor is handed it, and real handwritten digits as rows."""

import hashlib
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from client.artifact import Package
from engine.data import Data
from engine.events import Listed
from engine.models import Base
from engine.plan import Plan
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec
from engine.tasks.image_classification import ImageClassification
from tests.engine.runs import trained


def packaged(run: Run, folder: Path) -> Package:
    """The run's file with what stands beside it, read as a user reads it."""
    package = folder / "work" / "package"
    package.mkdir(parents=True)
    run.model.to("cpu").eval()
    run.plan.slot("exporter").exporter(run, run.model, package)
    steps = [step for one in run.plan.instructions if (step := one.preprocess(run)) is not None]
    run.task.describe(package, run.model, steps)
    return Package(package)


@cache
def digit_rows(train: int = 1000, valid: int = 400, test: int = 200) -> Rows:
    """Scikit-learn's digits of 8 x 8 pixels, dealt by a fixed draw."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[: train + valid + test]
    payloads = [_png(images[number].reshape(8, 8)) for number in order]
    return Rows(
        payloads=list(payloads),
        ids=np.array([hashlib.sha256(one + bytes([i % 251])).hexdigest()[:16] for i, one in enumerate(payloads)]),
        labels=labels[order].astype(np.int64),
        splits=np.array(["train"] * train + ["valid"] * valid + ["test"] * test),
        groups=None,
        shards=np.zeros(len(order), dtype=np.int64),
    )


def digit_run(folder: Path, instructions: Sequence[Any] = (), rows: Rows | None = None) -> Run:
    """A small net trained on digits, four epochs."""
    training = {"epochs": 4, "batch_size": 32, "learning_rate": 3e-3}
    body = {"task": "image_classification", "dataset": "rows", "instructions": list(instructions), "training": training}
    spec = Spec.model_validate(body)
    run = Run(spec, Plan.of(spec), Listed())
    train, valid, test = ((rows or digit_rows()).where(split).loaded() for split in ("train", "valid", "test"))
    run.task = ImageClassification.open(Base("resnet-small", None), [str(one) for one in range(10)], train, 1)
    run.data = Data(train, valid, test, run.task)
    return trained(run, folder)


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()
