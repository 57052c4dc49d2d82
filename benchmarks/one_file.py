"""One file for a task: what the product makes of a trained MiniLM at no more than a point lost, against PyTorch fp32.

MiniLM is trained once on each data set, with one seed. Every recipe then makes a file of each of the three models, and
that file answers the validation rows. Of the recipes whose loss, pooled over the data sets, is at most a point at the
bad end of its paired interval the one with the fewest bytes is chosen; it alone answers the test rows, once.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.inference import TOKENS, race
from benchmarks.pairs import Line, Pair
from benchmarks.runs import packaged, ready
from benchmarks.shared_data import joined
from benchmarks.texts import canonical
from client.artifact import Package
from engine.allocator import keep_freed_memory
from engine.checkpoint import Snapshots
from engine.evaluate import Figures, Measured, class_figures, loss
from engine.inference import eager_answers
from engine.interrupt import Interrupt
from engine.measure import answers_of
from engine.run import Run
from engine.train import train

Split = Literal["valid", "test"]
SETS = ("ag_news", "sst2", "tos_unfair")
SEED = 7
ALLOWED = 0.01
EPOCHS = 2
_FAST = (11, 26)
_RECOVERY = 300
_QUICK = {"train": 1000, "valid": 40, "test": 40}


def recipes(steps: int) -> dict[str, list[Any]]:
    """Instructions by name of the recipe; `steps`: of a recovery, or of a student's training."""
    four_bit = {"name": "post_training_quantization", "scheme": "embedding_int4", "block_size": 128}
    pruned = {"name": "structured_pruning", "ratio": 0.3, "round_to": 32, "recovery_steps": steps}
    student = {"name": "knowledge_distillation", "layers": 4, "steps": steps}
    return {
        "47": [four_bit],
        "48, 47": [{"name": "vocabulary_trimming", "max_unknown": 0.2}, four_bit],
        "45, 43, 47": [pruned, "knowledge_distillation", four_bit],
        "43, 47": [student, four_bit],
    }


@dataclass(frozen=True)
class Trained:
    """A data set's file and the model that was trained on it, with what it answers in fp32."""

    file: Path
    quick: bool
    run: Run
    answered: Mapping[Split, Figures]
    weights: int

    @classmethod
    def on(cls, name: str, folder: Path, *, quick: bool) -> "Trained":
        """Train MiniLM on a data set."""
        file = canonical(joined(folder, name, _QUICK if quick else None), "text_classification")
        run = ready(body(file, [], quick=quick))
        train(run, Snapshots(folder, run.sink), Interrupt())
        splits: Sequence[Split] = ("valid", "test")
        answered = {
            split: class_figures(
                run.data.rows(split).labels,
                eager_answers(run.task, run.model, run.data.examples[split]).argmax(axis=1),
            )
            for split in splits
        }
        run.model.eval().save_pretrained(folder / "reference")  # type: ignore[operator]  # a transformers model
        weights = sum(path.stat().st_size for path in (folder / "reference").glob("*.safetensors"))
        return cls(file, quick, run, answered, weights)

    def compressed(self, recipe: Sequence[Any], folder: Path) -> "Compressed":
        """A copy of the model through a recipe, as the file that a user has."""
        run = ready(body(self.file, recipe, quick=self.quick))
        run.model = copy.deepcopy(self.run.model)
        for one in run.plan.on("compress"):
            run.model = one.compress(run, run.model)
        folder.mkdir(parents=True)
        return Compressed(self, packaged(run, folder, threads=1))


@dataclass(frozen=True)
class Compressed:
    """The file that a recipe made of a trained model."""

    of: Trained
    package: Package

    @property
    def size(self) -> int:
        """Bytes of weights and graph."""
        return (self.package.folder / "model.onnx").stat().st_size

    def answered(self, split: Split) -> Figures:
        """What it answers on a split."""
        rows = self.of.run.data.rows(split)
        return class_figures(rows.labels, answers_of(self.package, rows.payloads).argmax(axis=1))


def body(file: Path, recipe: Sequence[Any], *, quick: bool) -> Mapping[str, Any]:
    """A job on a data set, with the instructions that make training fast."""
    training = {"epochs": EPOCHS, "batch_size": 32, "max_length": 64, "seed": SEED}
    return {
        "task": "text_classification",
        "dataset": str(file),
        "instructions": [*_FAST, *recipe],
        "training": {**training, "max_steps": 6} if quick else training,
    }


def lost(files: Sequence[Compressed], split: Split) -> Measured:
    """The accuracy lost on the rows of all data sets together."""
    before = np.concatenate([one.of.answered[split] for one in files])
    return loss("accuracy", before, np.concatenate([one.answered(split) for one in files]), SEED)


def bytes_ratio(files: Sequence[Compressed]) -> float:
    """Bytes of the files over those of the safetensors."""
    return sum(one.size for one in files) / sum(one.of.weights for one in files)


def chosen(found: Mapping[str, tuple[float, Measured]], allowed: float = ALLOWED) -> str:
    """The recipe with the smallest files (ratio, loss on validation rows) of those that lose no more than is allowed.

    Where none does, the one that loses least at the bad end.
    """
    holding = [name for name, (_, valid) in found.items() if valid.high <= allowed]
    if not holding:
        return min(found, key=lambda name: found[name][1].high)
    return min(holding, key=lambda name: found[name][0])


def judged(models: Sequence[Trained], folder: Path, *, quick: bool) -> tuple[list[Compressed], dict[str, float]]:
    """Make every file, choose on validation rows, and measure the chosen recipe on test rows; files and figures."""
    made, found = {}, {}
    told: dict[str, float] = {}
    for number, (name, recipe) in enumerate(recipes(2 if quick else _RECOVERY).items()):
        places = [folder / f"{number}-{index}" for index in range(len(models))]
        made[name] = [one.compressed(recipe, place) for one, place in zip(models, places, strict=True)]
        found[name] = (bytes_ratio(made[name]), lost(made[name], "valid"))
        told |= {f"{name}: bytes": found[name][0], f"{name}: lost on valid, at most": 100 * found[name][1].high}
    files = made[chosen(found)]
    test = lost(files, "test")
    accuracy = float(np.concatenate([one.of.answered["test"] for one in files])[:, 0].mean())
    return files, {
        "bytes": bytes_ratio(files),
        "lost at most": 100 * test.high,
        "lost": 100 * test.value,
        "test rows": float(test.n),
        "accuracy before": accuracy,
        **told,
    }


def timed(files: Sequence[Compressed]) -> Callable[[int], dict[str, float]]:
    """Measures a call of each file and of its model in fp32, in turn; milliseconds are means over the data sets."""
    races = [race(one.package, one.of.run.model) for one in files]

    def pair(number: int) -> dict[str, float]:
        times = np.array([one(number) for one in races])
        mine, theirs = times.mean(axis=0)
        return {"latency": float(mine / theirs), "file": float(mine), "PyTorch": float(theirs)}

    return pair


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """Train, compress, choose and judge once; what is measured again and again is the latency."""
    keep_freed_memory()
    torch.set_num_threads(setting.cores)
    folder = setting.scratch("one-file")
    names = SETS[-1:] if setting.quick else SETS
    models = [Trained.on(name, setting.scratch(f"one-file-{name}"), quick=setting.quick) for name in names]
    files, told = judged(models, folder, quick=setting.quick)
    torch.set_num_threads(1)
    pair = timed(files)
    yield lambda number: {**pair(number), **told}


_NAMES = tuple(recipes(_RECOVERY))
BENCHMARKS = (
    Benchmark(
        "one-file",
        "compression of one file",
        f"MiniLM on {', '.join(SETS)}, {EPOCHS} epochs of all their training rows at 64 tokens, seed {SEED}; each of"
        f" the recipes {'; '.join(_NAMES)} (47 with a 4-bit embedding in blocks of 128, 45 at .3 and a student of four"
        f" layers with {_RECOVERY} steps) makes a file a data set; chosen on all validation rows, judged once on all"
        f" test rows; batch 1, {TOKENS} tokens, one thread, processor time and bytes over PyTorch fp32's; points of"
        " accuracy with their paired 95 % interval",
        (
            Line("latency", 0.33, 0.20, more_is_better=False, unit="x"),
            Line("bytes", 0.21, 0.12, more_is_better=False, unit="x", exact=True),
            Line("lost at most", 100 * ALLOWED, 100 * ALLOWED, more_is_better=False, unit="points", exact=True),
            Line("lost", unit="points", exact=True),
            Line("test rows", exact=True),
            Line("accuracy before", exact=True),
            *(Line(f"{name}: bytes", unit="x", exact=True) for name in _NAMES),
            *(Line(f"{name}: lost on valid, at most", unit="points", exact=True) for name in _NAMES),
            Line("file", unit="ms"),
            Line("PyTorch", unit="ms"),
        ),
        opened,
        60,
    ),
)
