"""How unusual a text's attention is, beside clean training rows: at chance for word attacks, and here for comparison.

The features come from a graph of their own, `attention.onnx`, which a package has only where its detector reads them.
They grow with the length of a text, so what length explains is taken off before the distance is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from client.artifact import Feeds, Package, open_session

Matrix = npt.NDArray[np.float64]
FILE = "attention.onnx"
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class AttentionLaw:
    """What clean rows' features are like: what length explains of their middle and of their spread, (3, k) each, and of
    what is left the mean (k,) and the precision (k, k).
    """

    slopes: Matrix
    spread: Matrix
    mean: Matrix
    precision: Matrix

    def distance(self, features: Matrix, length: int) -> float:
        """The squared Mahalanobis distance of one text's features (k,), `length` in tokens."""
        left = without_length(features[None], np.array([length]), self.slopes, self.spread)[0] - self.mean
        return float(left @ self.precision @ left)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As tensors to be stored."""
        return {f"attention_{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "AttentionLaw":
        """Read back what `arrays` gave."""
        return cls(*(arrays[f"attention_{name}"] for name in ("slopes", "spread", "mean", "precision")))


def without_length(features: Matrix, lengths: npt.NDArray[np.int64], slopes: Matrix, spread: Matrix) -> Matrix:
    """Features (rows, k) less what length explains of them, in units of the spread at that length."""
    terms = length_terms(lengths)
    left: Matrix = (features - terms @ slopes) / np.maximum(terms @ spread, _LEAST_SPREAD)
    return left


def features_of(package: Package, feeds: Feeds) -> Matrix:
    """The features of one text, (k,), by the graph beside the model."""
    found: Matrix = _graph(package.folder / FILE, package.threads).run(["features"], feeds)[0][0].astype(np.float64)
    return found


@lru_cache(maxsize=4)
def _graph(path: Path, threads: int) -> onnxruntime.InferenceSession:
    return open_session(path, threads)


def length_terms(lengths: npt.NDArray[np.int64]) -> Matrix:
    """1, log n and log^2 n of each length, (rows, 3)."""
    logs = np.log(np.maximum(lengths, 2).astype(np.float64))
    return np.stack([np.ones_like(logs), logs, logs**2], axis=1)
