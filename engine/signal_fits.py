"""What signals of a detector know of a model: how it answers clean rows, and which words it takes for alike.

Knows no instruction; how the signals are read stands in `client.signals`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from client.artifact import Package
from client.density import AnswerLaw, centred
from engine.errors import InvalidData
from engine.lazy import sklearn_covariance
from engine.ports import Payload
from engine.robustness import neighbours_of
from engine.run import Run

_ALIKE = 8  # neighbours that are kept of a word
_LEAST_ROWS = 5  # of a class: the mean of fewer is luck


def fit_answers(package: Package, rows: Sequence[Payload]) -> AnswerLaw:
    """What the file's answers to clean training rows are like, with Ledoit and Wolf's covariance.

    Raises:
        InvalidData: where no class is answered often enough.
    """
    logits = centred(package.answers(rows).astype(np.float64))
    answered = logits.argmax(axis=1)
    known = [label for label in range(logits.shape[1]) if (answered == label).sum() >= _LEAST_ROWS]
    if not known:
        raise InvalidData("density: no class is answered five times", remedy="raise fit_rows, or leave density out")
    means = np.stack([logits[answered == label].mean(axis=0) for label in known])
    left = np.concatenate([logits[answered == label] - mean for label, mean in zip(known, means, strict=True)])
    return AnswerLaw(means, sklearn_covariance().LedoitWolf(assume_centered=True).fit(left).precision_)


def fit_neighbours(run: Run, eager: nn.Module, package: Package) -> npt.NDArray[np.int64]:
    """For each token id those of its nearest words in the model's own embeddings, (vocabulary, 8); -1 for none."""
    size = max(package.texts.tokenizer.get_vocab().values(), default=-1) + 1
    return neighbours_of(run, eager).table(size, _ALIKE)
