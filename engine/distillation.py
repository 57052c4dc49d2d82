"""How far a student is from its teacher, and how the states of a decoder are overheard. Knows no run and no task."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.contrastive import sides
from engine.token_loss import IGNORED, LOGIT_BYTES


def soft_losses(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher_T || student_T) a row, (...); logits (..., classes) of both. Hinton et al. 2015 section 2."""
    said = torch.log_softmax(student / temperature, dim=-1)
    taught = torch.log_softmax(teacher / temperature, dim=-1)
    distance = nn.functional.kl_div(said, taught, reduction="none", log_target=True).sum(-1)
    return temperature**2 * distance


def soft_similarities(student: Tensor, teacher: Tensor, scale: Tensor, temperature: float) -> Tensor:
    """`soft_losses` of each pair among those of its batch, (batch,): the mean of both ways.

    Args:
        student: text and picture embeddings side by side, (batch, 2d).
        teacher: the same of the teacher.
        scale: (), the inverse temperature of the contrast, for both.
    """
    said, taught = (scale * text @ image.T for text, image in (sides(student), sides(teacher)))
    return (soft_losses(said, taught, temperature) + soft_losses(said.T, taught.T, temperature)) / 2


def soft_token_losses(
    student: tuple[nn.Module, Tensor],
    teacher: tuple[nn.Module, Tensor],
    labels: Tensor,
    vocabulary: int,
    temperature: float,
    logit_bytes: int = LOGIT_BYTES,
) -> Tensor:
    """`soft_losses` of the next token at each position, (batch, length - 1) fp32; 0 where it is no target.

    Args:
        student: its output layer, and its last states (batch, length, width).
        teacher: the same of the teacher, of the same vocabulary.
        labels: (batch, length) int64, the tokens themselves; `IGNORED` is no target.
        logit_bytes: what the logits of one stretch of positions may take in fp32, of both.
    """
    states, taught, targets = student[1][:, :-1], teacher[1][:, :-1], labels[:, 1:]
    at_once = max(1, logit_bytes // max(1, 8 * vocabulary * len(states)))
    if states.shape[1] <= at_once:
        return _soft(student[0], states, teacher[0], taught, targets, temperature)
    made = [
        checkpoint(_soft, student[0], mine, teacher[0], its, target, temperature, use_reentrant=False)
        for mine, its, target in zip(
            states.split(at_once, dim=1), taught.split(at_once, dim=1), targets.split(at_once, dim=1), strict=True
        )
    ]
    return torch.cat(made, dim=1)


def _soft(
    head: nn.Module, states: Tensor, teacher: nn.Module, taught: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    with torch.no_grad():
        expected = teacher(taught).float()
    found = soft_losses(head(states).float(), expected, temperature)
    return found.masked_fill(targets == IGNORED, 0.0)


@contextmanager
def overheard(decoder: nn.Module, notes: dict[str, Any]) -> Iterator[None]:
    """Within, `notes["states"]` are the last states that a decoder gave; afterwards they are forgotten."""

    def note(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        notes["states"] = output.last_hidden_state

    handle = decoder.register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()
        notes.pop("states", None)
