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
    """The calibration error with its interval, and what it is made of, bin by bin.

    The estimate is biased upwards on few rows: each bin's noise counts as distance.
    """
    shares = probabilities(logits)
    confidence, right = shares.max(axis=1), logits.argmax(axis=1) == truth
    n, value = len(truth), calibration_error(confidence, right)
    low, high = _ends(confidence, right, value, seed)
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
    return {
        "error": round(value, 6),
        "ci95": [round(float(low), 6), round(float(high), 6)],
        "n": n,
        "bins": table,
    }


def _ends(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], value: float, seed: int
) -> tuple[float, float]:
    """The 95 % interval of the error of the model itself, which the bias of the estimate does not move up.

    From 0 on where a model that means what it says would show as much on rows of these confidences (Broecker and Smith
    2007); else a bootstrap over rows, its lower end reflected, since each of its draws is biased once more. The upper
    end is no nearer than that of accuracy: ten faultless rows prove nothing.
    """
    drawn, n = generator(seed, "bootstrap"), len(right)
    rows = (drawn.integers(0, n, n) for _ in range(_RESAMPLES))
    high = float(np.quantile([calibration_error(confidence[one], right[one]) for one in rows], 0.975))
    honest = [calibration_error(confidence, drawn.random(n) < confidence) for _ in range(_RESAMPLES)]
    low = 0.0 if value <= np.quantile(honest, 0.975) else max(0.0, 2 * value - high)
    share, ends = float(right.mean()), wilson(int(right.sum()), n)
    return low, min(1.0, max(high, value + max(share - ends[0], ends[1] - share)))


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
