"""The calibration error against a slow count, and how often its interval covers what the model is."""

import numpy as np
import pytest

from engine.calibration import BINS, calibration, calibration_error


def test_the_error_is_the_mean_gap_over_bins() -> None:
    drawn = np.random.default_rng(0)
    confidence, right = drawn.random(200), drawn.random(200) < 0.6
    slow = 0.0
    for number in range(BINS):
        held = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if held.any():
            slow += held.mean() * abs(float(right[held].mean()) - float(confidence[held].mean()))
    assert calibration_error(confidence, right) == pytest.approx(slow)


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_interval_covers_the_error_of_the_model(gap: float) -> None:
    drawn, covered = np.random.default_rng(3), 0
    for number in range(8):
        sure = drawn.uniform(0.6, 0.98, 150)
        logits = np.log(np.stack([sure, 1 - sure], axis=1))
        truth = np.where(drawn.random(150) < sure - gap, 0, 1)
        found = calibration(logits, truth, number)
        assert found["ci95"][0] <= found["error"] <= found["ci95"][1]
        covered += found["ci95"][0] <= gap <= found["ci95"][1]
    assert covered >= 7


def test_ten_faultless_rows_prove_no_calibration() -> None:
    logits = np.log(np.full((10, 2), [0.99, 0.01]))
    assert calibration(logits, np.zeros(10, dtype=np.int64), 1)["ci95"][1] > 0.2
