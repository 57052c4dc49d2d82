"""Private training speed: 37 against the very loop without it, the same model, rows and optimizer, in core-seconds.

Both sides take other random batches in every pair, of the same mean size; what is compared is examples a processor
second, and the private side's draws are counted as they come. Noise is part of a step. A draw of rows is summed in
passes of similar length, which the private side may choose since its sum does not depend on them. Dropout is off on
both sides: a private run has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.runs import ready
from benchmarks.texts import prepared
from benchmarks.training import LEARNING_RATE, MAX_LENGTH, seconds_of
from engine.allocator import keep_freed_memory
from engine.apart import draw_nothing
from engine.clipping import add_clipped
from engine.journal import Journal
from engine.ports import Batch, Example
from engine.prepare import begin
from engine.run import Run
from engine.train import again

BATCH = 16
_ENDLESS = 100_000  # steps that a plan holds: more than are measured
_BOUND = 0.1


class Counted:
    """A prepared run whose examples are counted on their way into a batch."""

    def __init__(self, file: Path, instructions: Sequence[Any]) -> None:
        self.run = ready(_body(file, instructions), Journal())
        self.examples = 0
        begin(self.run, None)
        collate = self.run.task.collate

        def counted(examples: Sequence[Example], labels: Sequence[int]) -> Batch:
            self.examples += len(labels)
            return collate(examples, labels)

        self.run.task.collate = counted  # type: ignore[method-assign]  # of this benchmark's own task

    def rate(self, steps: int, seed: int) -> float:
        """Examples a processor second of `steps` steps, in an order of this seed where the seed decides on it."""
        self.examples = 0
        training = self.run.spec.training.model_copy(update={"seed": seed})
        self.run.spec = self.run.spec.model_copy(update={"training": training})
        seconds = seconds_of(lambda: again(self.run, self.run.model, steps=steps))
        return self.examples / seconds


def difference(run: Run, rows: int = BATCH) -> float:
    """The largest difference of a weight's clipped sum to that of a loop over single examples."""
    model, data = run.model, run.data
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def losses(part: Sequence[int]) -> Tensor:
        batch = run.task.collate([data.examples["train"][i] for i in part], [int(data.train.labels[i]) for i in part])
        return run.task.losses(run.task.forward(model, batch), batch)

    model.eval()
    model.zero_grad(set_to_none=True)
    add_clipped(model, lambda: losses(range(rows)), _BOUND)
    found = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    for row in range(rows):
        own = torch.autograd.grad(losses([row]).sum(), weights, allow_unused=True)
        given = [(total, gradient) for total, gradient in zip(found, own, strict=True) if gradient is not None]
        norm = float(torch.nn.utils.get_total_norm([gradient for _, gradient in given]))
        for total, gradient in given:
            total -= gradient * min(1.0, _BOUND / norm)
    model.zero_grad(set_to_none=True)
    model.train()
    return max(float(total.abs().max()) for total in found)


def _body(file: Path, instructions: Sequence[Any]) -> Mapping[str, Any]:
    private = any(one != 19 for one in instructions)  # 37 says itself how many rows a step takes
    size = {} if private else {"batch_size": BATCH}
    training = {**size, "max_length": MAX_LENGTH, "learning_rate": LEARNING_RATE, "epochs": 1}
    body = {"task": "text_classification", "dataset": str(file), "instructions": list(instructions)}
    return {**body, "training": training}


@contextmanager
def against_plain(setting: Setting, *, beside: Sequence[Any], scope: str) -> Iterator[Pair]:
    """The engine's loop with 37 over the engine's loop without."""
    keep_freed_memory()
    torch.set_num_threads(setting.cores)
    file = prepared(setting.scratch(f"private-{scope}"))
    private = {"name": "dp_sgd", "noise_multiplier": 1.0, "max_grad_norm": _BOUND, "scope": scope}
    ours = Counted(file, [*beside, {**private, "steps": _ENDLESS, "expected_batch": BATCH}])
    plain = Counted(file, beside)
    draw_nothing(plain.run.model)
    steps, off = 2 if setting.quick else 10, difference(ours.run)

    def pair(number: int) -> dict[str, float]:
        mine, theirs = in_turn(number, lambda: ours.rate(steps, number), lambda: plain.rate(steps, number))
        return {"ratio": mine / theirs, "private": mine, "plain": theirs, "difference": off}

    pair(0)
    yield pair


_LINES = (
    Line("private", unit="/s"),
    Line("plain", unit="/s"),
    Line("difference", 1e-5, 1e-5, more_is_better=False, exact=True),  # to a loop over single examples
)

BENCHMARKS = (
    Benchmark(
        "private",
        "private training, all weights",
        "37 on MiniLM, batch 16, fp32, noise included, against the same loop without privacy, dropout off on both "
        "sides; examples a processor second over examples a processor second",
        (Line("ratio", 0.65, 0.80, unit="x"), *_LINES),
        partial(against_plain, beside=(), scope="full"),
        300,
    ),
    Benchmark(
        "private-lora",
        "private training, LoRA",
        "the same with 19, whose adapters and head are trained alone",
        (Line("ratio", 0.85, 0.95, unit="x"), *_LINES),
        partial(against_plain, beside=(19,), scope="lora"),
        300,
    ),
)
