"""How sure a classifier is against how often it is right, and a table by class. Knows no model and no file."""

from typing import Any

import numpy as np
import numpy.typing as npt

from client.artifact import softmax
from engine.evaluate import Labels, wilson
from engine.randomness import generator

BINS = 15
_RESAMPLES = 1000


def probabilities(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Softmax of (n, classes) logits in double precision; rows sum to 1."""
    return softmax(logits.astype(np.float64))


def calibration_error(confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """Expected calibration error: the mean distance between confidence and accuracy over bins of equal width.

    confidence: (n,) in 0 to 1, of the answered class; right: (n,). The bins are (0, 1/bins], ..., as in Guo et al. 2017
    section 2 (equation 3).
    """
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def calibration(logits: npt.NDArray[np.floating[Any]], truth: Labels, seed: int) -> dict[str, Any]:
    """The calibration error with a bootstrap interval over rows, and what it is made of, bin by bin.

    The estimate is biased upwards on few rows: each bin's noise counts as distance.
    """
    shares = probabilities(logits)
    confidence, right = shares.max(axis=1), logits.argmax(axis=1) == truth
    drawn, n = generator(seed, "bootstrap"), len(truth)
    rows = (drawn.integers(0, n, n) for _ in range(_RESAMPLES))
    low, high = np.quantile([calibration_error(confidence[one], right[one]) for one in rows], [0.025, 0.975])
    which = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    table = [
        {
            "upto": round((number + 1) / BINS, 4),
            "n": int((which == number).sum()),
            "confidence": round(float(confidence[which == number].mean()), 6),
            "accuracy": round(float(right[which == number].mean()), 6),
        }
        for number in range(BINS)
        if (which == number).any()
    ]
    value = calibration_error(confidence, right)
    return {
        "error": round(value, 6),
        "ci95": [round(float(low), 6), round(float(high), 6)],
        "n": n,
        "bins": table,
    }


def class_table(truth: Labels, answers: Labels, labels: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """By class: its rows, recall with an interval, precision and F1; null where nothing was there to be counted."""
    table: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(labels):
        n, answered = int((truth == number).sum()), int((answers == number).sum())
        hit = int(((truth == number) & (answers == number)).sum())
        ends = [round(one, 6) for one in wilson(hit, n)] if n else None
        table[name] = {
            "n": n,
            "answered": answered,
            "recall": round(hit / n, 6) if n else None,
            "recall_ci95": ends,
            "precision": round(hit / answered, 6) if answered else None,
            "f1": round(2 * hit / (n + answered), 6) if n + answered else None,
        }
    return table
