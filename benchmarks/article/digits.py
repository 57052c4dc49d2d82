"""Scikit-learn's digits, as arrays for small nets and as rows for the engine's own loop. Knows no instruction."""

import hashlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from engine.checkpoint import Snapshots
from engine.data import Data
from engine.events import Listed
from engine.inference import eager_answers
from engine.interrupt import Interrupt
from engine.models import Base
from engine.plan import Plan
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec
from engine.tasks.image_classification import ImageClassification
from engine.train import train

CLASSES = 10
_VALID, _TEST = 100, 500


@dataclass(frozen=True)
class Digits:
    """Pixels (n, 64) from 0 to 1 and labels (n,), for training and for the test."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def digits(seed: int, train_rows: int = 1000) -> Digits:
    """Dealt by the seed."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    shown = torch.from_numpy(pixels[order] / 16).float()
    said = torch.from_numpy(labels[order].astype(np.int64))
    return Digits(shown[_TEST:][:train_rows], said[_TEST:][:train_rows], shown[:_TEST], said[:_TEST])


def net(seed: int, hidden: int = 64) -> nn.Sequential:
    """Two layers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


@torch.no_grad()
def accuracy(model: nn.Module, data: Digits) -> float:
    """On the test rows."""
    return float((model(data.test).argmax(dim=1) == data.test_labels).float().mean())


def trained_run(instructions: Sequence[Any], seed: int, train_rows: int, **training: Any) -> Run:
    """The small residual net after the engine's own loop; the seed deals the rows and starts the net."""
    body = {
        "task": "image_classification",
        "dataset": "digits",
        "instructions": list(instructions),
        "training": {"epochs": 4, "batch_size": 32, "learning_rate": 3e-3, "seed": seed, **training},
    }
    spec = Spec.model_validate(body)
    run = Run(spec, Plan.of(spec), Listed())
    dealt = _rows(seed, train_rows)
    taught, valid, test = (dealt.where(split).loaded() for split in ("train", "valid", "test"))
    run.task = ImageClassification.open(Base("resnet-small", None), [str(i) for i in range(CLASSES)], taught, 1)
    run.data = Data(taught, valid, test, run.task)
    with tempfile.TemporaryDirectory() as folder:
        train(run, Snapshots(Path(folder), run.sink), Interrupt())
    return run


def answers(run: Run, model: nn.Module) -> npt.NDArray[np.float32]:
    """Logits of the test rows, (n, 10)."""
    return eager_answers(run.task, model, run.data.examples["test"])


def run_accuracy(run: Run, model: nn.Module) -> float:
    """On the test rows."""
    return float((answers(run, model).argmax(axis=1) == run.data.test.labels).mean())


def _rows(seed: int, train_rows: int) -> Rows:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))[: train_rows + _VALID + _TEST]
    payloads = [_png(images[number].reshape(8, 8)) for number in order]
    return Rows(
        payloads=list(payloads),
        ids=np.array([hashlib.sha256(f"{number}".encode()).hexdigest()[:16] for number in order]),
        labels=labels[order].astype(np.int64),
        splits=np.array(["train"] * train_rows + ["valid"] * _VALID + ["test"] * _TEST),
        groups=None,
        shards=np.zeros(len(order), dtype=np.int64),
    )


def _png(pixels: npt.NDArray[np.float64]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()
