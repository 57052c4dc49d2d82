"""A canonical file of pictures made by code, for speed: what they show does not matter to it."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from engine.data import METADATA_KEY

_OTHER_ROWS = 64


def made_pictures(folder: Path, train: int, side: int, classes: int) -> Path:
    """So many coloured squares of noise for training, and a few of valid and test."""
    drawn, splits = np.random.default_rng(0), ["train"] * train + ["valid"] * _OTHER_ROWS + ["test"] * _OTHER_ROWS
    columns = {
        "id": [f"{number:08x}" for number in range(len(splits))],
        "image": [_png(drawn.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in splits],
        "label": pa.array(drawn.integers(0, classes, len(splits)), pa.int32()),
        "split": splits,
    }
    about = {"version": 1, "task": "image_classification", "labels": [str(i) for i in range(classes)], "columns": {}}
    path = folder / "pictures.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(about)}), path)
    return path


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()
