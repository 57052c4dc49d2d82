"""transformers' Trainer as its documentation has it: dynamic padding by its collator, fused AdamW, clipping at 1.

It runs in a process of its own, as its users run it: what the engine does to its process must not reach it.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, TypeAlias

import torch
import transformers
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from engine.data import Data
from engine.models import find

Row = Mapping[str, Any]
Opened: TypeAlias = Callable[[], tuple[Any, Any]]
"""Makes the model and the collator; called in the Trainer's own process, so a function of a module."""
Clock: TypeAlias = Callable[[], float]
CLASSES = 4
_WARM_SHARE = 0.06


def classifier() -> tuple[Any, Any]:
    """MiniLM with a fresh head, and transformers' own padding."""
    base = str(find("minilm-l6", None).folder)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=CLASSES)
    return model, DataCollatorWithPadding(AutoTokenizer.from_pretrained(base))


class Peer:
    """A Trainer in a process of its own, around one model."""

    def __init__(
        self, folder: Path, threads: int, opened: Opened = classifier, clock: Clock = time.process_time, **further: Any
    ) -> None:
        """`clock`: what is counted, a function of a module; `further`: arguments of the Trainer."""
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        given = (far_end, folder, threads, opened, clock, further)
        self._process = context.Process(target=_serve, args=given, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()

    def rate(self, data: Data, batches: Sequence[Sequence[int]]) -> float:
        """Examples a second of its clock over these batches of training rows, in this order."""
        examples, labels = data.examples["train"], data.train.labels
        rows = [{"input_ids": examples[i].tolist(), "label": int(labels[i])} for batch in batches for i in batch]
        return len(rows) / self.seconds(rows, len(batches[0]))

    def seconds(self, rows: Sequence[Row], batch_size: int) -> float:
        """Seconds of its clock for one epoch over these rows, in this order."""
        self._pipe.send((rows, batch_size))
        seconds: float = self._pipe.recv()
        return seconds


class _Rows(Dataset[Row]):
    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]


class _Timer(TrainerCallback):
    """Seconds from the first step to the last: setting up is not held against the Trainer."""

    seconds = 0.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds = -self._clock()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds += self._clock()


def _serve(
    pipe: Connection, folder: Path, threads: int, opened: Opened, clock: Clock, further: Mapping[str, Any]
) -> None:
    """Train on each list of rows that comes, until None does."""
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, collator = opened()
    while (asked := pipe.recv()) is not None:
        rows, batch_size = asked
        timer = _Timer(clock)
        arguments = TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            learning_rate=1e-4,
            weight_decay=0.01,
            warmup_steps=max(1, round(_WARM_SHARE * len(rows) / batch_size)),
            train_sampling_strategy="sequential",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            **further,
        )
        trainer = Trainer(model, arguments, collator, train_dataset=_Rows(rows), callbacks=[timer])
        trainer.remove_callback(PrinterCallback)  # which a Trainer without a progress bar gets by itself
        trainer.train()
        pipe.send(timer.seconds)
