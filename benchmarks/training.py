"""Training speed: the engine's own loop against transformers' Trainer and against a loop written by hand.

All sides train MiniLM on the same rows in processor seconds, fp32 unless 26 is chosen, AdamW, dropout on, without
validation and snapshots. What trains is `engine.train.again`: the loop of every job, on a plan made from a spec.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.flops import product_rate, training_flops
from benchmarks.hand import train_by_hand
from benchmarks.machine import has_bf16
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.peer import Peer
from benchmarks.runs import ready
from benchmarks.texts import prepared
from engine.allocator import keep_freed_memory
from engine.baseline import counted_windows
from engine.events import Listed
from engine.prepare import begin
from engine.run import Run
from engine.train import again

BATCH = 32
MAX_LENGTH = 128
LEARNING_RATE = 1e-4
EPOCH_BATCHES = 63  # of 2,000 rows


@dataclass(frozen=True)
class Ours:
    """The engine on a data file: one prepared run, and runs of the same plan in other orders of the rows."""

    run: Run

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Ours":
        """Prepare a run of this spec as a job does."""
        run = ready(body)
        begin(run, None)
        return cls(run)

    @classmethod
    def on(cls, file: Path, instructions: Sequence[Any]) -> "Ours":
        """MiniLM on a data file."""
        return cls.of(body(file, instructions))

    def shuffled(self, seed: int) -> Run:
        """The same model, rows and plan, in another order."""
        training = self.run.spec.training.model_copy(update={"seed": seed})
        spec, memory = self.run.spec.model_copy(update={"training": training}), copy.deepcopy(self.run.memory)
        run = Run(spec, self.run.plan, Listed(), memory)
        run.task, run.data, run.model = self.run.task, self.run.data, self.run.model
        run.note_start()  # so that nothing which this model was asked once is asked again in what is timed
        return run


def body(file: Path, instructions: Sequence[Any]) -> Mapping[str, Any]:
    """The spec of a training on a file: MiniLM, where it names no other model."""
    return {
        "task": "text_classification",
        "dataset": str(file),
        "instructions": list(instructions),
        "training": {
            "epochs": 1,
            "batch_size": BATCH,
            "max_length": MAX_LENGTH,
            "learning_rate": LEARNING_RATE,
            "seed": 1,
        },
    }


def batches_of(run: Run, steps: int) -> list[tuple[int, ...]]:
    """The row numbers of the first `steps` batches of an epoch."""
    return [chunk for window in islice(counted_windows(run, 0), steps) for chunk in window.chunks]


def seconds_of(work: Callable[[], Any]) -> float:
    """Processor seconds of all threads of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def rate_of_ours(run: Run, steps: int) -> float:
    """Examples a processor second of the engine's loop."""
    examples = sum(map(len, batches_of(run, steps)))
    model: nn.Module = run.model
    return examples / seconds_of(lambda: again(run, model, steps=steps))


def _prepare(setting: Setting, name: str) -> Path:
    """The data file, and this process as the engine's own is set up."""
    keep_freed_memory()
    torch.set_num_threads(setting.cores)
    return prepared(setting.scratch(name))


@contextmanager
def against_trainer(setting: Setting) -> Iterator[Pair]:
    """Nothing chosen, on the very batches that the Trainer gets."""
    ours = Ours.on(_prepare(setting, "training"), [])
    steps = 2 if setting.quick else 8
    peer = Peer(setting.scratch("trainer"), setting.cores)

    def pair(number: int) -> dict[str, float]:
        run = ours.shuffled(number)
        rows = batches_of(run, steps)
        mine, theirs = in_turn(number, lambda: rate_of_ours(run, steps), lambda: peer.rate(run.data, rows))
        return {"ratio": mine / theirs, "ours": mine, "trainer": theirs}

    with peer:
        pair(0)  # warms both sides up
        yield pair


@contextmanager
def bucketed_against_trainer(setting: Setting) -> Iterator[Pair]:
    """11 and 26 over whole epochs, since their batches differ in width, against some batches of the Trainer."""
    file = _prepare(setting, "bucketed")
    plain, fast = Ours.on(file, []), Ours.on(file, [11, 26])
    peer = Peer(setting.scratch("bucketed-trainer"), setting.cores)
    ours_steps, peer_steps = (6, 2) if setting.quick else (EPOCH_BATCHES, 8)
    dtype = torch.bfloat16 if has_bf16() else torch.float32

    def pair(number: int) -> dict[str, float]:
        run = fast.shuffled(number)
        rows = batches_of(plain.shuffled(number), peer_steps)
        mine, theirs = in_turn(number, lambda: rate_of_ours(run, ours_steps), lambda: peer.rate(run.data, rows))
        batches = batches_of(run, ours_steps)
        flops = training_flops(run.task, run.data.lengths("train"), batches)
        share = flops * mine / sum(map(len, batches)) / product_rate(dtype)
        return {"ratio": mine / theirs, "ours": mine, "trainer": theirs, "share of torch.mm": share}

    with peer:
        again(fast.shuffled(1), fast.run.model, steps=2)
        peer.rate(plain.run.data, batches_of(plain.run, 2))
        yield pair


@contextmanager
def against_hand(setting: Setting) -> Iterator[Pair]:
    """An empty plan on the very batches that a loop without any hook gets."""
    ours = Ours.on(_prepare(setting, "hooks"), [])
    steps = 2 if setting.quick else 4
    by_hand = ours.run.task.build()

    def pair(number: int) -> dict[str, float]:
        run = ours.shuffled(number)
        loop = partial(train_by_hand, run, by_hand, batches_of(run, steps), LEARNING_RATE)
        model: nn.Module = run.model
        mine, theirs = in_turn(
            number, lambda: seconds_of(lambda: again(run, model, steps=steps)), lambda: seconds_of(loop)
        )
        return {"ratio": mine / theirs}

    pair(0)
    yield pair


BENCHMARKS = (
    Benchmark(
        "training",
        "training, nothing chosen",
        "MiniLM classifier, batch 32, `max_length` 128, fp32, AdamW, no validation; examples a processor second over "
        "those of transformers' Trainer on the same batches",
        (Line("ratio", 1.0, 1.1, unit="x"), Line("ours", unit="/s"), Line("trainer", unit="/s")),
        against_trainer,
        330,
    ),
    Benchmark(
        "bucketed",
        "training, 11 and 26 chosen",
        "the same against the Trainer; whole epochs of ours, and the share of the rate of `torch.mm` of the same run",
        (
            Line("ratio", 2.8 if has_bf16() else 1.6, 3.7, unit="x"),
            Line("ours", unit="/s"),
            Line("trainer", unit="/s"),
            Line("share of torch.mm"),
        ),
        bucketed_against_trainer,
        360,
    ),
    Benchmark(
        "hooks",
        "the hooks' own cost",
        "processor seconds of an empty plan over those of a loop written by hand, on the same batches",
        (Line("ratio", 1.05, 1.03, more_is_better=False, unit="x"),),
        against_hand,
        300,
    ),
)
