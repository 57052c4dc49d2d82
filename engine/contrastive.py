"""Pairs of embeddings: the contrastive terms, retrieval by rank, and what shows a collapse. Knows no model, no task.

Throughout, row i of `text` and row i of `image`, each (n, d) and of length 1, belong to one pair. `alike` (n, 2) holds
equal numbers where captions are equal, and beside them where pictures are. A text and a picture are right for each
other where some row has both: neither another caption of a picture nor another picture of a caption is a wrong one.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.rows import both_numbers

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
    """`alike` from the labels of rows, (n,): what stands alone, told by 0, gets a number of its own."""
    shared = np.stack(both_numbers(labels), axis=1)
    return np.where(shared == 0, -1 - np.arange(len(labels))[:, None], shared)


def contrastive_losses(text: Tensor, image: Tensor, scale: Tensor, alike: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each text over the pictures of the batch, and of each picture over the texts, (n,) each.

    Where several are right the target is spread evenly over their rows: none of them is a negative.

    Args:
        scale: (), the inverse temperature.

    Source: Radford et al. 2021 (2103.00020), section 2.3.
    """
    with torch.autocast(text.device.type, enabled=False):  # a cosine in bf16 has three digits, and is scaled after
        scores = scale * (_wide(text) @ _wide(image).T)
        captions, pictures = (alike[None] == alike[:, None]).to(scores.dtype).unbind(dim=2)
        right = (captions @ pictures > 0).to(scores.dtype)  # of a text and a picture: some row has both
    return _spread(scores, right), _spread(scores.T, right.T)


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


def right_for(own: Numbers, alike: Numbers) -> npt.NDArray[np.bool_]:
    """Whether the candidate of each row is right for queries of these numbers, (m, n): some row has both.

    Args:
        alike: (n, 2), the numbers of the queries' side first.
    """
    order = np.argsort(alike[:, 1], kind="stable")
    asked, offered = alike[order].T
    starts = np.unique(offered, return_index=True)[1]
    of_different = np.logical_or.reduceat(own[:, None] == asked[None, :], starts, axis=1)
    found: npt.NDArray[np.bool_] = of_different[:, np.unique(alike[:, 1], return_inverse=True)[1]]
    return found


def ranks(queries: Embeddings, candidates: Embeddings, alike: Numbers, own: Numbers | None = None) -> Numbers:
    """How many wrong candidates each query puts before or level with its best right one, (n,): 0 is a first place.

    A candidate that stands in several rows counts once. Ties count against: an encoder that gives one answer for
    everything finds nothing.

    Args:
        alike: (n, 2), the numbers of the queries' side first: `alike[:, ::-1]` where pictures look for texts.
        own: (m,), the numbers of queries that are not the candidates' own, row by row.
    """
    different = np.unique(alike[:, 1], return_index=True)[1]
    every, found = candidates[different].astype(np.float64).T, np.empty(len(queries), np.int64)
    own = alike[:, 0] if own is None else own
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        scores = queries[rows].astype(np.float64) @ every
        right = right_for(own[rows], alike)[:, different]
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


def _spread(scores: Tensor, right: Tensor) -> Tensor:
    """Cross-entropy of each row over the columns, (n,), the target spread evenly over those that are right."""
    targets = right / right.sum(dim=1, keepdim=True)
    losses: Tensor = -(targets * scores.log_softmax(dim=1)).sum(dim=1)
    return losses


def _wide(values: Tensor) -> Tensor:
    """At least fp32."""
    return values.float() if values.dtype in {torch.bfloat16, torch.float16} else values
