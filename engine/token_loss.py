"""The loss of each token of a language model without all of its logits at once. Knows no task.

The logits of a batch in fp32 are its largest tensor by far: 8 rows of 512 tokens over 49,152 words are 805 MB, and
softmax and gradient are as large again. Beyond a budget they are made for a stretch of positions at a time and, in
training, made again in the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORED = -100
LOGIT_BYTES = 1 << 28


class Hits:
    """How many targets there were, and of how many the model had taken the right token for the likeliest."""

    def __init__(self) -> None:
        self._targets: int | Tensor = 0
        self._right: int | Tensor = 0

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count targets (n,) and the logits (n, vocabulary) of their places; nobody waits for an accelerator."""
        likeliest = logits.max(dim=1).indices  # on a processor in half of the time that argmax takes
        self._right = self._right + (likeliest == targets).sum()  # IGNORED is no token, so never the likeliest
        self._targets = self._targets + (targets != IGNORED).sum()

    @property
    def share(self) -> float | None:
        """Right ones among the targets; None where there was no target."""
        return int(self._right) / int(self._targets) if int(self._targets) else None


_counting: ContextVar[Hits | None] = ContextVar("counting", default=None)


@contextmanager
def counted_hits() -> Iterator[Hits]:
    """Within, every `token_losses` counts into what this gives: the logits are gone before its caller could look."""
    hits = Hits()
    before = _counting.set(hits)
    try:
        yield hits
    finally:
        _counting.reset(before)


def token_losses(
    head: nn.Module, states: Tensor, labels: Tensor, vocabulary: int, logit_bytes: int = LOGIT_BYTES
) -> Tensor:
    """Negative log-likelihood in nats of each token from its predecessors, (batch, length - 1) fp32.

    Args:
        head: from states (positions, width) to logits (positions, vocabulary).
        states: (batch, length, width), the last layer's.
        labels: (batch, length) int64, the tokens themselves; `IGNORED` is no target and its loss is 0.
        logit_bytes: what the logits of one stretch may take in fp32.
    """
    states, targets = states[:, :-1], labels[:, 1:]
    at_once = max(1, logit_bytes // max(1, 4 * vocabulary * len(states)))
    if states.shape[1] <= at_once:
        return _losses(head, states, targets)
    stretches = list(zip(states.split(at_once, dim=1), targets.split(at_once, dim=1), strict=True))
    if not torch.is_grad_enabled():
        return torch.cat([_losses(head, *one) for one in stretches], dim=1)
    made = [checkpoint(_losses, head, *one, use_reentrant=False) for one in stretches]
    return torch.cat(made, dim=1)


def _losses(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    # Flat, since a product with a cut batch would copy the whole head first.
    logits = head(states.flatten(0, 1)).float()
    if (hits := _counting.get()) is not None:
        hits.add(logits, targets.flatten())
    flat = nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="none")
    return flat.view(targets.shape)
