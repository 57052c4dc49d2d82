"""Pairs of embeddings: the contrastive terms, retrieval by rank, and what shows a collapse. Knows no model, no task.

Throughout, row i of `text` and row i of `image`, each (n, d) and of length 1, belong to one pair, and `alike` (n,)
holds equal numbers where captions are equal: such rows are right for each other.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Embeddings = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

MOST_LOG_SCALE = math.log(100)  # Radford et al. 2021, section 2.5: beyond it training turns unstable
FIRST_LOG_SCALE = math.log(1 / 0.07)
_QUERIES = 1024  # compared at a time, so that memory grows with n and not with its square
_TIE = 1e-6  # cosines of equal vectors differ by as much, depending on where they stand in a product


def sides(answers: Any) -> tuple[Any, Any]:
    """The text half and the picture half of embeddings side by side, (n, 2d) to (n, d) each, of numpy or torch."""
    middle = answers.shape[1] // 2
    return answers[:, :middle], answers[:, middle:]


def told_apart(labels: Numbers) -> Numbers:
    """Numbers that are equal where captions are, (n,), from the labels of rows: 0 is a caption that stands alone."""
    found: Numbers = np.where(labels == 0, -1 - np.arange(len(labels)), labels)
    return found


def contrastive_losses(text: Tensor, image: Tensor, scale: Tensor, alike: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each text over the pictures of the batch, and of each picture over the texts, (n,) each.

    Where captions are equal the target is spread evenly over their rows: none of them is a negative.

    Args:
        scale: (), the inverse temperature.

    Source: Radford et al. 2021 (2103.00020), section 2.3.
    """
    with torch.autocast(text.device.type, enabled=False):  # a cosine in bf16 has three digits, and is scaled after
        scores = scale * (_wide(text) @ _wide(image).T)
    right = (alike[:, None] == alike[None, :]).to(scores.dtype)
    targets = right / right.sum(dim=1, keepdim=True)
    to_image = -(targets * scores.log_softmax(dim=1)).sum(dim=1)
    to_text = -(targets * scores.T.log_softmax(dim=1)).sum(dim=1)
    return to_image, to_text


def alignment(text: Tensor, image: Tensor) -> Tensor:
    """Squared distance of each pair, (n,), 0 to 4. Wang and Isola 2020 (2005.10242), equation 1."""
    distances: Tensor = (_wide(text) - _wide(image)).square().sum(dim=1)
    return distances


def uniformity(points: Tensor) -> Tensor:
    """log mean exp(-2 |x - y|^2) over all pairs of different rows, (): -8 to 0, and 0 where all points are one.

    0 for a single row. Wang and Isola 2020, equation 2.
    """
    points = _wide(points)
    if len(points) < 2:
        return points.sum() * 0.0
    with torch.autocast(points.device.type, enabled=False):
        cosines = points @ points.T
    above = torch.ones_like(cosines, dtype=torch.bool).triu(diagonal=1)
    spread: Tensor = (-2 * (2 - 2 * cosines[above])).exp().mean().log()
    return spread


def ranks(queries: Embeddings, candidates: Embeddings, alike: Numbers, own: Numbers | None = None) -> Numbers:
    """How many wrong candidates each query puts before or level with its best right one, (n,): 0 is a first place.

    Ties count against: an encoder that gives one answer for everything finds nothing. `own` has the numbers of queries
    that are not the candidates' own, row by row.
    """
    every, found = candidates.astype(np.float64).T, np.empty(len(queries), np.int64)
    own = alike if own is None else own
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        scores = queries[rows].astype(np.float64) @ every
        right = own[rows, None] == alike[None, :]
        best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
        # Not "at least as high": what is no number would then be no rival.
        found[rows] = (~(scores < best - _TIE) & ~right).sum(axis=1)
    return found


def nearest(queries: Embeddings, candidates: Embeddings) -> tuple[Numbers, npt.NDArray[np.float64]]:
    """The best candidate of each query, (n,), and its cosine's lead over the next, (n,); ties go to the first."""
    best, leads = np.empty(len(queries), np.int64), np.zeros(len(queries))
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        scores = queries[rows].astype(np.float64) @ candidates.astype(np.float64).T
        best[rows] = scores.argmax(axis=1)
        if scores.shape[1] > 1:
            ordered = np.partition(scores, -2, axis=1)
            leads[rows] = ordered[:, -1] - ordered[:, -2]
    return best, leads


def mean_cosine(points: Embeddings) -> float:
    """Mean cosine between different rows: near 1 where the space has collapsed; 0 for a single row."""
    n = len(points)
    if n < 2:
        return 0.0
    whole = points.astype(np.float64)
    return float((np.square(whole.sum(axis=0)).sum() - np.square(whole).sum()) / (n * (n - 1)))


def _wide(values: Tensor) -> Tensor:
    """At least fp32."""
    return values.float() if values.dtype in {torch.bfloat16, torch.float16} else values
