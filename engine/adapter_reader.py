"""An adapter read back: its base is found by name, and PEFT puts it beside that. Knows not how it was made."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from client.artifact import Feeds, replay
from engine.exporters.adapter import base_of, with_adapter
from engine.inference import eager_answers
from engine.ports import Answers, Payload, text_of
from engine.tasks.causal_lm import CausalLM
from engine.tasks.text_classification import TextClassification


def adapted_decoder(folder: Path) -> nn.Module:
    """A language model with the adapter of a folder, in fp32."""
    task = CausalLM.reopen(folder)
    return with_adapter(CausalLM(base_of(folder), task.max_length).build(), folder)


class AdaptedClassifier:
    """A text classifier with the adapter of a folder, asked as a package of any other format is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.task = TextClassification.reopen(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._steps: Sequence[Mapping[str, Any]] = config.get("preprocess") or []
        untouched = TextClassification(base_of(folder), self.task.labels, self.task.max_length)
        self.model = with_adapter(untouched.build(), folder)

    def answers(self, inputs: Sequence[Payload], batch_size: int = 32) -> Answers:
        """Logits of raw rows, (n, classes)."""
        return eager_answers(self.task, self.model, self._encoded(inputs), batch_size)

    def feeds(self, inputs: Sequence[Payload]) -> Feeds:
        """What the model is fed for one batch, by name."""
        batch = self.task.collate(self._encoded(inputs), [0] * len(inputs))
        return {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}

    @torch.inference_mode()
    def answer(self, feeds: Feeds) -> Answers:
        """Logits of one batch, (rows, classes)."""
        logits = self.model(**{name: torch.from_numpy(value) for name, value in feeds.items()}).logits
        return np.asarray(logits.numpy(), dtype=np.float32)

    def _encoded(self, inputs: Sequence[Payload]) -> list[Any]:
        return self.task.encode([replay(self._steps, text_of(one)) for one in inputs])
