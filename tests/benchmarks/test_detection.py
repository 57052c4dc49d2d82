"""The parts of the detection benchmark: its lines, and the L2 detector that it is held against."""

from pathlib import Path

import numpy as np

from benchmarks.__main__ import BENCHMARKS
from benchmarks.detection import RATE, Centroids, l2_figures
from tests.engine.runs import tiny_run, trained
from tests.engine.tiny import tiny_text_rows, tiny_texts


def test_the_lines_are_those_that_were_set() -> None:
    lines = {line.figure: (line.passes, line.goal) for line in BENCHMARKS["detection"].lines}
    assert lines["AUROC"] == (0.90, 0.95)
    assert lines["TPR"] == (0.50, 0.75)
    assert lines["F1"] == (0.70, 0.85)
    assert lines["F1 above L2"] == (0.05, 0.10)
    assert lines["attacks"][0] == 200
    assert RATE == 0.05


def test_the_l2_detector_measures_from_the_middle_of_the_answered_class(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, [], tiny_text_rows(1000), epochs=2), tmp_path)
    clean, _ = tiny_texts(60, seed=2)
    centroids = Centroids(run, run.data.train.payloads[:200])
    pooled, answered = centroids._pooled(clean)
    slow = [
        np.sqrt(((one - centroids._middles[label]) ** 2).sum()) for one, label in zip(pooled, answered, strict=True)
    ]
    assert np.allclose(centroids.scores(clean)[:, 0], slow, atol=1e-4)
    found = l2_figures(run, clean[:20], clean, 0.2, 100)
    assert 0 <= found.fpr < 0.5
    assert 0.2 < found.auroc < 0.8
