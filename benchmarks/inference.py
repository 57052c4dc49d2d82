"""The INT8 file that a job hands over against PyTorch fp32: one row of 64 tokens, one thread, alternating."""

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.texts import ROOT, prepared
from client.artifact import Package
from engine.models import find

TOKENS = 64
_CALLS = 20
_WARM = 5


@contextmanager
def opened(setting: Setting, instructions: Sequence[Any]) -> Iterator[Pair]:
    """Let the engine make the file by a short job, and hold it against the untouched architecture."""
    folder = setting.scratch(f"inference-{len(instructions)}")
    package = package_of(folder, instructions)
    torch.set_num_threads(1)
    base = str(find("minilm-l6", None).folder)
    eager = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4, dtype=torch.float32).eval()
    eager.save_pretrained(folder / "reference")
    weights = sum(path.stat().st_size for path in (folder / "reference").glob("*.safetensors"))
    size_ratio = (package.folder / "model.onnx").stat().st_size / weights
    times = race(package, eager)

    def pair(number: int) -> dict[str, float]:
        mine, theirs = times(number)
        return {"ratio": mine / theirs, "bytes": size_ratio, "file": mine, "PyTorch": theirs}

    yield pair


def race(package: Package, eager: nn.Module) -> Callable[[int], tuple[float, float]]:
    """Gives for a pair's number the milliseconds of a call of the file and of the eager model, on one row of tokens."""
    words = min(20_000, package.texts.tokenizer.get_vocab_size())
    ids = np.random.default_rng(0).integers(1000, words, (1, TOKENS))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}

    @torch.inference_mode()
    def reference() -> Any:
        return eager(**tensors)

    def times(number: int) -> tuple[float, float]:
        return in_turn(number, lambda: _milliseconds(lambda: package.answer(feeds)), lambda: _milliseconds(reference))

    for _ in range(_WARM):
        times(0)
    return times


def package_of(folder: Path, instructions: Sequence[Any]) -> Package:
    """Train two steps, compress and export, as any job does; what the training learned does not change the speed."""
    spec = {
        "task": "text_classification",
        "dataset": str(prepared(folder)),
        "instructions": list(instructions),
        "training": {"max_steps": 2, "batch_size": 16},
    }
    job, out = folder / "job.json", folder / "out"
    job.write_text(json.dumps(spec))
    with (folder / "engine.log").open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "engine", str(job), "--out", str(out)], cwd=ROOT, stdout=log, stderr=log, check=True
        )
    with zipfile.ZipFile(out / "outputs" / "model.zip") as archive:
        archive.extractall(folder / "package")
    return Package(folder / "package", threads=1)


def _milliseconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    for _ in range(_CALLS):
        call()
    return 1e3 * (time.process_time() - started) / _CALLS


def _lines(
    time_passes: float, time_goal: float, bytes_pass: float | None, bytes_goal: float | None
) -> tuple[Line, ...]:
    return (
        Line("ratio", time_passes, time_goal, more_is_better=False, unit="x"),
        Line("bytes", bytes_pass, bytes_goal, more_is_better=False, exact=True, unit="x"),
        Line("file", unit="ms"),
        Line("PyTorch", unit="ms"),
    )


BENCHMARKS = (
    Benchmark(
        "inference",
        "inference of the INT8 file",
        f"47 alone, batch 1, {TOKENS} tokens, one thread, processor time over PyTorch fp32's; bytes over safetensors'",
        _lines(0.38, 0.33, 0.26, 0.252),
        partial(opened, instructions=[47]),
        90,
    ),
    Benchmark(
        "pruned",
        "the same with 45",
        "45 at ratio .2, then 47",
        _lines(0.33, 0.28, None, None),
        partial(opened, instructions=[{"name": "structured_pruning", "ratio": 0.2, "recovery_steps": 2}, 47]),
        90,
    ),
)
