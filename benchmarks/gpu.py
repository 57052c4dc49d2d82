"""`python -m benchmarks.gpu`: the engine on a GPU against transformers' Trainer there; writes docs/gpu.md.

Wall seconds with everything that was started done. The text model has MiniLM's shape and weights drawn by code, since
speed does not depend on what it has learned; texts and pictures are made by code too.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from transformers import (
    BertForSequenceClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    PreTrainedTokenizerFast,
    ResNetForImageClassification,
)

from benchmarks.benchmark import Benchmark, Result, Setting
from benchmarks.gpu_page import page
from benchmarks.machine import commit, versions
from benchmarks.made_pictures import made_pictures
from benchmarks.page import figures
from benchmarks.pairs import Line, Pair, collect, in_turn
from benchmarks.peer import CLASSES, Peer
from benchmarks.shaped_base import shaped_base
from benchmarks.texts import ROOT, prepared
from benchmarks.training import BATCH, Ours, batches_of, body
from engine.randomness import settle_sums
from engine.resnets import resnet_config
from engine.run import Run
from engine.train import again

RECORD, PAGE = ROOT / "docs" / "gpu.json", ROOT / "docs" / "gpu.md"
SHAPED = "minilm-shaped"
_PICTURES, _PICTURE_BATCH, _SIDE = 4096, 128, 32
_STEPS, _PAIRS, _SECONDS = 32, 10, 60.0
_RATES = (Line("ratio", unit="x"), Line("ours", unit="/s"), Line("trainer", unit="/s"))


def wall() -> float:
    """Seconds, once the GPU has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def text_model(folder: str) -> tuple[Any, Any]:
    """What the Trainer trains on texts, and transformers' own padding."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", pad_token="[PAD]")
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=CLASSES)
    return model, DataCollatorWithPadding(tokenizer)


def picture_model() -> tuple[Any, Any]:
    """What the Trainer trains on pictures."""
    return ResNetForImageClassification(resnet_config("resnet-18", 3, CLASSES)), DefaultDataCollator()


def _seconds(work: Callable[[], Any]) -> float:
    started = wall()
    work()
    return wall() - started


def _steps(setting: Setting) -> int:
    """The steps of a turn."""
    return 2 if setting.quick else _STEPS


def _rate(run: Run, steps: int) -> float:
    """Examples a second of the engine's loop."""
    examples, model = sum(map(len, batches_of(run, steps))), run.model
    return examples / _seconds(lambda: again(run, model, steps=steps))


def _base_and_texts(setting: Setting) -> tuple[Path, Path]:
    """The folder of the base and the data file, made once for all rows."""
    models, texts = setting.folder / "models", setting.folder / "texts"
    os.environ["FIFTYTWO_MODELS_DIR"] = str(models)
    if not texts.is_dir():
        shaped_base(setting.scratch("models") / SHAPED)
        prepared(setting.scratch("texts"))
    return models / SHAPED, texts / "texts.parquet"


def _ours(file: Path, instructions: Sequence[Any]) -> Ours:
    return Ours.of({**body(file, instructions), "model": SHAPED})


@contextmanager
def _texts(setting: Setting, name: str, instructions: Sequence[Any], **further: Any) -> Iterator[Pair]:
    """The Trainer gets the rows in the order of the plain run."""
    base, file = _base_and_texts(setting)
    plain, ours, steps = _ours(file, []), _ours(file, instructions), _steps(setting)
    opened = partial(text_model, str(base))
    with Peer(setting.scratch(f"trainer-{name}"), setting.cores, opened, wall, **further) as peer:

        def pair(number: int) -> dict[str, float]:
            batches, run = batches_of(plain.shuffled(number), steps), ours.shuffled(number)
            mine, theirs = in_turn(number, lambda: _rate(run, steps), lambda: peer.rate(run.data, batches))
            return {"ratio": mine / theirs, "ours": mine, "trainer": theirs}

        pair(0)
        yield pair


@contextmanager
def _pictures(setting: Setting) -> Iterator[Pair]:
    """The Trainer's pictures are decoded and normalised beforehand; ours are decoded, and normalised on their way."""
    file = made_pictures(setting.scratch("pictures"), 512 if setting.quick else _PICTURES, _SIDE, CLASSES)
    training = {"epochs": 1, "batch_size": _PICTURE_BATCH, "learning_rate": 1e-3, "seed": 1}
    task = {"task": "image_classification", "model": "resnet-18", "dataset": str(file), "training": training}
    ours, steps = Ours.of(task), _steps(setting)
    data = ours.run.data
    numbers = range(len(data.train))
    pixels = ours.run.task.collate([data.examples["train"][i] for i in numbers], [0 for _ in numbers])["pixel_values"]
    rows = [{"pixel_values": pixels[i].numpy(), "labels": int(data.train.labels[i])} for i in numbers]
    with Peer(setting.scratch("trainer-pictures"), setting.cores, picture_model, wall) as peer:

        def theirs_on(chosen: Sequence[Mapping[str, Any]]) -> float:
            return len(chosen) / peer.seconds(chosen, _PICTURE_BATCH)

        def pair(number: int) -> dict[str, float]:
            run = ours.shuffled(number)
            chosen = [rows[i] for batch in batches_of(run, steps) for i in batch]
            mine, theirs = in_turn(number, lambda: _rate(run, steps), lambda: theirs_on(chosen))
            return {"ratio": mine / theirs, "ours": mine, "trainer": theirs}

        pair(0)
        yield pair


@contextmanager
def _order(setting: Setting) -> Iterator[Pair]:
    """The text model in bf16 as every run has it, and where PyTorch may add in any order."""
    ours, steps = _ours(_base_and_texts(setting)[1], [26]), _steps(setting)

    def freely(run: Run) -> float:
        with patch("engine.prepare.insist_on_order", lambda _: settle_sums()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch says so
            return _rate(run, steps)

    def pair(number: int) -> dict[str, float]:
        run = ours.shuffled(number)
        ordered, free = in_turn(number, lambda: _rate(run, steps), lambda: freely(run))
        return {"ratio": ordered / free, "one order": ordered, "any order": free}

    pair(0)
    yield pair


@contextmanager
def _memory(setting: Setting) -> Iterator[Pair]:
    """The allocator's own peak of some steps, with 25 and without."""
    file = _base_and_texts(setting)[1]

    def peak(instructions: Sequence[Any]) -> float:
        run = _ours(file, instructions).run
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        again(run, run.model, steps=4)
        return torch.cuda.max_memory_allocated() / 2**20

    def pair(_: int) -> dict[str, float]:
        with_it, without = peak([25]), peak([])
        return {"ratio": with_it / without, "with 25": with_it, "without": without}

    yield pair


_WORK = f"a classifier of MiniLM's shape, batch {BATCH}, `max_length` 128, texts of 51 tokens at the mean; examples a"
BENCHMARKS = (
    Benchmark(
        "gpu-text",
        "texts, nothing chosen",
        f"{_WORK} second over those of the Trainer, both in fp32",
        _RATES,
        partial(_texts, name="plain", instructions=[]),
        _SECONDS,
    ),
    Benchmark(
        "gpu-text-bf16",
        "texts, 11 and 26 chosen",
        f"{_WORK} second over those of the Trainer with `bf16=True`",
        _RATES,
        partial(_texts, name="bf16", instructions=[11, 26], bf16=True),
        _SECONDS,
    ),
    Benchmark(
        "gpu-pictures",
        "pictures, nothing chosen",
        f"`resnet-18`, batch {_PICTURE_BATCH}, {_SIDE} x {_SIDE} in colour; pictures a second over the Trainer's",
        _RATES,
        _pictures,
        _SECONDS,
    ),
    Benchmark(
        "gpu-order",
        "one order of sums",
        f"{_WORK} second with 26, over those where PyTorch's attention may add in any order",
        (Line("ratio", unit="x"), Line("one order", unit="/s"), Line("any order", unit="/s")),
        _order,
        _SECONDS,
    ),
    Benchmark(
        "gpu-memory",
        "peak memory with 25",
        f"the peak of PyTorch's allocator over four steps of the text model, batch {BATCH}, over that without 25",
        (
            Line("ratio", more_is_better=False, unit="x", exact=True),
            Line("with 25", more_is_better=False, unit="MiB", exact=True),
            Line("without", more_is_better=False, unit="MiB", exact=True),
        ),
        _memory,
        _SECONDS,
    ),
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure every row and write record and page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure on the GPU of this machine.")
    parser.add_argument("--quick", action="store_true", help="one tiny pair a row, on a processor too; writes nothing")
    parser.add_argument("--out", type=Path, default=RECORD.parent, help="the folder of gpu.json and gpu.md")
    parser.add_argument("--commit", help="what is measured, where the copy that runs has no history")
    parser.add_argument("--page", action="store_true", help="measure nothing: draw the page of the record anew")
    given = parser.parse_args(words)
    if given.page:
        _draw(given.out)
        return 0
    if not torch.cuda.is_available() and not given.quick:
        parser.error("this machine has no CUDA device")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    about, results = _about(given.commit or commit(ROOT)), list[Result]()
    with tempfile.TemporaryDirectory(prefix="fiftytwo-bench-") as folder:
        for one in BENCHMARKS if torch.cuda.is_available() else BENCHMARKS[:-1]:
            settle_sums()  # as every job begins
            results.append(_measured(one, Setting(Path(folder), 2, given.quick)))
            print(figures(results[-1]), flush=True)
            if not given.quick:
                _keep(given.out, results, about)
    return 0


def _measured(one: Benchmark, setting: Setting) -> Result:
    exact = all(line.exact for line in one.lines)
    began, pairs = time.monotonic(), 1 if setting.quick or exact else _PAIRS
    with one.open(setting) as pair:
        values = collect(pair, one.lines, fewest=pairs, most=pairs)
    return Result(one, values, time.monotonic() - began)


def _keep(folder: Path, results: Sequence[Result], about: Mapping[str, str]) -> None:
    """Write record and page of the rows so far."""
    rows = {one.benchmark.name: {"seconds": round(one.seconds, 1), "values": one.values} for one in results}
    (folder / RECORD.name).write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    _draw(folder)


def _draw(folder: Path) -> None:
    """Write the page of the record."""
    record = json.loads((folder / RECORD.name).read_text(encoding="utf-8"))
    (folder / PAGE.name).write_text(page(record, BENCHMARKS, steps=_STEPS), encoding="utf-8")


def _about(measured: str) -> dict[str, str]:
    shown = versions()
    card = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "card": card.name if card else "none",
        "memory": f"{card.total_memory / 2**30:.0f} GiB" if card else "none",
        "CUDA": str(torch.version.cuda),
        **{name: shown[name] for name in ("Python", "torch", "transformers", "accelerate")},
        "commit": measured,
        "day": f"{np.datetime64('today')}",
    }


if __name__ == "__main__":
    sys.exit(main())
