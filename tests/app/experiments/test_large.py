"""An experiment of many jobs, rows and classes: what is kept of it, and what comparing its arms takes, is little."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.artifacts.models import Artifact
from app.experiments.comparing import figures_of
from app.experiments.reading import Left, Trace, compact, left_by, paired
from app.storage import FolderStorage, Storage
from engine.evaluate import class_figures

ROWS, CLASSES, ARMS, SEEDS = 2_500, 77, 3, 10
RECEIPT: dict[str, Any] = {"size": {"exported_bytes": 1}, "latency": {"ratio": 1.0}}


@contextmanager
def peak_below(megabytes: float) -> Iterator[None]:
    """Hold what Python and numpy take within the context against a bound."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


def answered(arm: int, seed: int) -> Any:
    """Figures of a job: truth by row, and an answer that is right four times of five."""
    drawn = np.random.default_rng([arm, seed])
    truth = np.random.default_rng(0).integers(0, CLASSES, ROWS)
    return class_figures(truth, np.where(drawn.random(ROWS) < 0.8, truth, drawn.integers(0, CLASSES, ROWS)))


def test_arms_of_many_classes_are_compared_in_little_memory() -> None:
    ids = [str(i) for i in range(ROWS)]
    arms = [
        {seed: Left(ids, compact(answered(arm, seed)), lambda: [], RECEIPT, 1.0) for seed in range(SEEDS)}
        for arm in range(ARMS)
    ]
    with peak_below(100):
        found = figures_of(["baseline", "one", "two"], "macro_f1", 0.01, paired(arms))
    assert {one["verdict"] for one in found["comparisons"]} <= {"undecided", "no_difference"}


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[bytes], Artifact]:
    """Stores a file of a job."""
    storage = FolderStorage(tmp_path / "files")

    def store(content: bytes) -> Artifact:
        (tmp_path / "file").write_bytes(content)
        kept = storage.save(tmp_path / "file")
        return Artifact(storage_key=kept.key, size_bytes=kept.size_bytes)

    return store


def test_what_many_jobs_answered_is_kept_in_few_bytes(tmp_path: Path, stored: Callable[[bytes], Artifact]) -> None:
    storage: Storage = FolderStorage(tmp_path / "files")
    receipt, traced = stored(json.dumps(RECEIPT).encode()), []
    for seed in range(SEEDS):
        lines = [
            {"id": f"{i:016x}", "sha256": f"{i:064x}", "figures": list(map(float, one)), "predicted": "some class"}
            for i, one in enumerate(answered(0, seed))
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        traced.append(Trace(0, seed, stored(content), receipt, 1.0))
    left_by(storage, 1, traced[:1])
    with peak_below(10):
        (by_seed,) = left_by(storage, 1, traced)
    assert [one.figures.dtype for one in by_seed.values()] == [np.int16] * SEEDS
    np.testing.assert_array_equal(by_seed[3].figures, answered(0, 3))
    assert by_seed[3].lines()[7]["predicted"] == "some class"


@pytest.mark.parametrize("odd", [0.5, 40_000.0, -40_000.0, np.nan, np.inf])
def test_figures_that_two_bytes_do_not_say_are_kept_as_they_are(odd: float) -> None:
    figures = np.array([[1.0, 2.0], [odd, 3.0]])
    np.testing.assert_array_equal(compact(figures), figures)
    assert compact(figures).dtype == np.float64
    assert compact(figures[:1]).dtype == np.int16
