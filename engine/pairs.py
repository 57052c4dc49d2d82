"""Which rows of a prepared file of pairs share their caption or their picture. Knows the file, and no run."""

from collections.abc import Container
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from engine.ingest import canonical
from engine.rows import equal_numbers, pair_labels

PICTURE = canonical.PICTURE
_AT_A_TIME = 64


def labels_of(path: Path, columns: Container[str]) -> npt.NDArray[np.int64]:
    """The labels of a file's rows, (n,)."""
    captions = pq.read_table(path, columns=["text"])["text"].to_pylist()
    return pair_labels(equal_numbers(captions), equal_numbers(_pictures_of(path, columns)))


def _pictures_of(path: Path, columns: Container[str]) -> list[str]:
    if PICTURE in columns:
        told: list[str] = pq.read_table(path, columns=[PICTURE])[PICTURE].to_pylist()
        return told
    # A file from before this column was written: whoever trained on it was dealt its rows by pair, and still is.
    batches = pq.ParquetFile(path).iter_batches(_AT_A_TIME, columns=["image"], use_threads=False)
    return [canonical.hash_of(picture) for batch in batches for picture in batch["image"].to_pylist()]
