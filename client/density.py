"""How unusual an answer is beside those to clean training rows: the distance to the nearest class. Knows no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AnswerLaw:
    """What the logits of clean rows are like: means (classes, labels) of the rows that are answered alike, and the
    precision (labels, labels) that the classes share. Lee et al. 2018, on the last layer.
    """

    means: Matrix
    precision: Matrix

    def distance(self, logits: Matrix) -> float:
        """The squared Mahalanobis distance of one answer (labels,) to the nearest class."""
        apart = centred(logits[None]) - self.means
        return float(np.einsum("ci,ij,cj->c", apart, self.precision, apart).min())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As tensors to be stored."""
        return {f"answers_{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "AnswerLaw":
        """Read back what `arrays` gave."""
        return cls(*(arrays[f"answers_{name}"] for name in ("means", "precision")))


def centred(logits: Matrix) -> Matrix:
    """Logits (rows, labels) less their mean a row: a softmax does not see what all of a row share."""
    found: Matrix = logits - logits.mean(axis=1, keepdims=True)
    return found
