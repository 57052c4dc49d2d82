"""The baseline of pictures and captions: ridge regression from colours and a thumbnail to words. Knows no server.

As the shared data's README has it: the mean and the spread of each colour and 12 x 12 pixels, to the TF-IDF of the
captions; a picture finds the caption whose words its prediction is nearest to.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

Floats = npt.NDArray[np.float64]
_SIDE = 12
_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def recall_at_10(archive: Path) -> float:
    """Recall at 10 from picture to text on the test rows; the strength is chosen on the valid rows."""
    looks, texts = {}, {}
    with zipfile.ZipFile(archive) as members:
        for split in ("train", "valid", "test"):
            rows = [json.loads(line) for line in members.read(f"{split}.jsonl").decode().splitlines()]
            texts[split] = [str(row["text"]) for row in rows]
            looks[split] = np.stack([_look(members.read(row["image"])) for row in rows])
    words = TfidfVectorizer().fit(texts["train"])
    spoken = {split: words.transform(found).toarray() for split, found in texts.items()}
    fitted = [Ridge(alpha=alpha).fit(looks["train"], spoken["train"]) for alpha in _STRENGTHS]
    best = max(fitted, key=lambda one: found_among(one.predict(looks["valid"]), spoken["valid"], 10))
    return found_among(best.predict(looks["test"]), spoken["test"], 10)


def found_among(said: Floats, truth: Floats, k: int) -> float:
    """The share of rows of `said` whose own row of `truth` is among its k nearest by cosine; a tie counts for it.

    said, truth: (n, width).
    """
    likeness = _unit(said) @ _unit(truth).T
    own = np.diag(likeness)[:, None]
    return float(((likeness > own).sum(axis=1) < k).mean())


def _unit(values: Floats) -> Floats:
    found: Floats = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return found


def _look(content: bytes) -> Floats:
    """Mean and spread of each colour, then the pixels of the thumbnail, all in 0 to 1."""
    with Image.open(io.BytesIO(content)) as picture:
        colours = picture.convert("RGB")
        pixels = np.asarray(colours, np.float64).reshape(-1, 3) / 255
        small = np.asarray(colours.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float64).ravel() / 255
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0), small])
