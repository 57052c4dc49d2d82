"""transformers' Trainer as its documentation has it: dynamic padding by its collator, fused AdamW, clipping at 1."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from engine.data import Data
from engine.ports import Task


class _Rows(Dataset[dict[str, Any]]):
    def __init__(self, data: Data, numbers: Sequence[int]) -> None:
        examples, labels = data.examples["train"], data.train.labels
        self._rows = [{"input_ids": examples[i].tolist(), "label": int(labels[i])} for i in numbers]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class _Clock(TrainerCallback):
    """Processor seconds from the first step to the last: setting up is not held against the Trainer."""

    seconds = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds = -time.process_time()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.seconds += time.process_time()


class Peer:
    """A Trainer around a model of its own."""

    def __init__(self, task: Task, folder: Path) -> None:
        self._model = task.build()
        self._folder = folder
        tokenizer = AutoTokenizer.from_pretrained(task.folder)  # type: ignore[attr-defined]  # of the text task
        self._collator = DataCollatorWithPadding(tokenizer)

    def rate(self, data: Data, batches: Sequence[Sequence[int]]) -> float:
        """Examples a processor second over these batches of training rows, in this order."""
        numbers = [row for batch in batches for row in batch]
        clock = _Clock()
        arguments = TrainingArguments(
            output_dir=str(self._folder),
            per_device_train_batch_size=len(batches[0]),
            num_train_epochs=1,
            learning_rate=1e-4,
            weight_decay=0.01,
            warmup_steps=max(1, round(0.06 * len(batches))),
            train_sampling_strategy="sequential",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        trainer = Trainer(self._model, arguments, self._collator, train_dataset=_Rows(data, numbers), callbacks=[clock])
        trainer.train()
        return len(numbers) / clock.seconds
