"""Texts of the shared data sets with their labels and MiniLM's sentence embeddings, read once. Knows no instruction."""

import json
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from benchmarks.article.section import NotAtHand
from benchmarks.texts import ROOT
from engine.models import find
from engine.word_proposals import Meaning

DATA = ROOT.parent / "shared" / "data"
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """n texts, their labels (n,) and embeddings (n, 384) of length 1."""

    texts: list[str]
    labels: Labels
    embedded: Floats


@cache
def meaning() -> Meaning:
    """The packaged MiniLM."""
    return Meaning(find("minilm-l6", None).folder)  # type: ignore[arg-type]  # a packaged model has a folder


@cache
def texts_of(name: str, split: str, count: int, words: int = 0) -> Texts:
    """The first `count` texts of a data set; with `words`, lower-cased and cut after so many.

    Raises:
        NotAtHand: where the data set is missing.
    """
    path = DATA / "text" / name / f"{split}.jsonl"
    if not path.is_file():
        where = path.relative_to(ROOT.parent)
        raise NotAtHand(f'{name} is missing: JSON lines with "text" and "label" belong at {where}')
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    texts = [" ".join(row["text"].lower().split()[:words]) if words else row["text"] for row in rows]
    labels = np.array([row["label"] for row in rows], dtype=np.int64)
    return Texts(texts, labels, meaning().of(texts))
