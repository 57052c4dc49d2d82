"""The parts of the aggregation benchmark: what it writes, what both sides make of it, what its count of memory sees."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks import aggregation
from benchmarks.__main__ import BENCHMARKS
from benchmarks.aggregation import BOUND, UPDATES, VALUES, peak_bytes, plain_sum, private_sum, write_updates
from engine.tensorfile import read_layout


def test_the_work_is_that_of_the_line() -> None:
    assert (UPDATES, VALUES) == (1000, 75_000)
    ratio, memory = BENCHMARKS["aggregation"].lines[:2]
    assert (ratio.passes, ratio.goal, ratio.more_is_better) == (1.8, 1.2, False)
    assert memory.exact
    assert not memory.more_is_better


def test_both_sides_add_what_lies_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_updates(tmp_path / "updates", 12)
    files = sorted(folder.iterdir())
    updates = [np.concatenate([one.ravel() for _, one in sorted(load_file(path).items())]) for path in files]
    norms = [float(np.linalg.norm(one.astype(np.float64))) for one in updates]
    assert 0 < sum(norm > BOUND for norm in norms) < len(norms)
    layout = read_layout(files[0])
    start = min(one.start for one in layout.tensors.values())
    plain = plain_sum(folder, start)
    assert len(plain) == VALUES
    assert plain.sum() == pytest.approx(sum(float(one.astype(np.float64).sum()) for one in updates), rel=1e-6)
    monkeypatch.setattr(aggregation, "source", lambda _: lambda count: torch.zeros(count, dtype=torch.float64))
    clipped = sum(one.astype(np.float64) * min(1.0, BOUND / norm) for one, norm in zip(updates, norms, strict=True))
    np.testing.assert_allclose(private_sum(folder, layout) * UPDATES, clipped, atol=1e-5)


def test_the_memory_of_numpy_is_counted() -> None:
    assert 8_000_000 <= peak_bytes(lambda: np.zeros(1_000_000)) < 9_000_000
    assert peak_bytes(lambda: None) < 100_000


def test_a_round_of_more_clients_takes_no_more_memory(tmp_path: Path) -> None:
    few, many = write_updates(tmp_path / "few", 3), write_updates(tmp_path / "many", 30)
    layout = read_layout(few / "0000")
    private_sum(few, layout)
    assert peak_bytes(lambda: private_sum(many, layout)) < 1.05 * peak_bytes(lambda: private_sum(few, layout))
