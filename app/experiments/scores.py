"""Scores as functions of sums over rows, so that many resamples of the rows are one product of matrices.

A row's figures are those of `engine.evaluate`; its parts are numbers whose sums give the score. Knows no experiment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from app.experiments.statistics import Array, Table
from engine.evaluate import METRICS

Figures: TypeAlias = npt.NDArray[np.number[Any]]
"""(rows, columns), as `engine.evaluate` has them."""


@dataclass(frozen=True)
class Score:
    """`parts`: (n, columns) figures to (n, m), from the first `columns` of them; `of`: (..., m) sums to (...) scores.

    `counted`: a row is right or wrong; `more_is_better`: whether a higher score is a better one.
    """

    parts: Callable[[Figures], Table]
    of: Callable[[Array], Array]
    columns: int
    counted: bool
    more_is_better: bool


def score_of(metric: str, classes: int) -> Score:
    """The score of this name; `classes`: how many there are, where rows have one."""
    known = METRICS[metric]
    if metric == "macro_f1":
        return Score(lambda figures: _class_parts(figures, classes), _macro_f1, 3, known.counted, known.more_is_better)
    parts, columns = (_share_parts, 1) if known.share else (_bits_parts, 2)
    return Score(parts, _ratio, columns, known.counted, known.more_is_better)


def _ratio(sums: Array) -> Array:
    found: Array = sums[..., 0] / np.maximum(1.0, sums[..., 1])
    return found


def _share_parts(figures: Figures) -> Array:
    return np.stack([figures[:, 0].astype(np.float64), np.ones(len(figures))], axis=1)


def _bits_parts(figures: Figures) -> Array:
    return np.stack([figures[:, 0] / np.log(2), figures[:, 1].astype(np.float64)], axis=1)


def _class_parts(figures: Figures, classes: int) -> Table:
    """(n, 3 * classes): the row is right and of the class, is of it, is said to be."""
    truth, said = (figures[:, column].astype(np.int32) for column in (1, 2))
    rows, right = np.arange(len(figures)), np.flatnonzero(truth == said)
    places = np.concatenate([right, rows, rows]), np.concatenate([truth[right], truth + classes, said + 2 * classes])
    return sparse.csr_array((np.ones(len(places[0]), np.int32), places), (len(figures), 3 * classes))


def _macro_f1(sums: Array) -> Array:
    """The mean F1 over the classes that occur in the sample."""
    right, truth, said = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    total = truth + said
    f1 = np.where(total > 0, 2 * right / np.maximum(1.0, total), 0.0)
    found: Array = f1.sum(axis=-1) / np.maximum(1, (total > 0).sum(axis=-1))
    return found
