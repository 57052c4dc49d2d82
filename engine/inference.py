"""Answers of an eager model over many rows. Knows neither training nor scores."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from engine.ports import Answers, Example, Task, device_of

_SORTED_BATCHES = 64  # batches sorted together: rows that lie on disk are encoded once and read in their order


@torch.no_grad()
def eager_answers(task: Task, model: nn.Module, examples: Sequence[Example], batch_size: int = 64) -> Answers:
    """Answers (n, k) in the order of the examples, in evaluation mode; the model's mode is put back.

    Rows of similar length share a batch, so little of it is padding.
    """
    was_training, device = model.training, device_of(model)
    model.eval()
    answers: Answers | None = None
    block_size = batch_size * _SORTED_BATCHES
    for first in range(0, len(examples), block_size):
        block = [examples[i] for i in range(first, min(first + block_size, len(examples)))]
        order = np.argsort(task.lengths(block), kind="stable")
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = task.collate([block[int(i)] for i in numbers], [0] * len(numbers))
            batch = {name: value.to(device) for name, value in batch.items()}
            said = task.answers(task.forward(model, batch), batch).float().cpu().numpy()
            if answers is None:
                answers = np.zeros((len(examples), said.shape[1]), np.float32)
            answers[first + numbers] = said
    model.train(was_training)
    return np.zeros((0, 1), np.float32) if answers is None else answers
