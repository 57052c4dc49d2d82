"""A small language model that only counts: how usual is a sequence of token ids? Knows no text and no tokenizer.

Orders one to three, each smoothed by the one below (Witten and Bell 1991): a context gives to what it has not seen the
weight of the number of different tokens that it has seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Counts by key, keys sorted, (types,) each."""

    keys: Ids
    counts: Ids

    @classmethod
    def of(cls, keys: Ids, counts: Ids | None = None) -> "Table":
        """Count keys, each once or `counts` times."""
        found, places = np.unique(keys, return_inverse=True)
        weights = np.ones(len(keys)) if counts is None else counts
        return cls(found, np.bincount(places, weights=weights, minlength=len(found)).astype(np.int64))

    def look_up(self, keys: Ids) -> Ids:
        """The counts of these keys, 0 where there is none."""
        if not len(self.keys):
            return np.zeros(len(keys), dtype=np.int64)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.counts[places], 0)


class NGrams:
    """Counts of single tokens, (vocabulary,), and of pairs and triples by key: the ids as digits of one number."""

    def __init__(self, singles: Ids, pairs: Table, triples: Table) -> None:
        self.singles = singles.astype(np.int64)
        self.pairs = pairs
        self.triples = triples
        self._size = len(singles)
        # For each context: how often it was followed, and by how many different tokens.
        self._followed = Table.of(pairs.keys // self._size, pairs.counts)
        self._kinds = Table.of(pairs.keys // self._size)
        self._followed_pairs = Table.of(triples.keys // self._size, triples.counts)
        self._kinds_of_pairs = Table.of(triples.keys // self._size)

    @classmethod
    def fit(cls, sequences: Iterable[Ids], vocabulary: int) -> "NGrams":
        """Count the tokens of sequences that each begin and end with their special tokens; ids may be left out."""
        parts = [np.asarray(one, dtype=np.int64) for one in sequences]
        none = np.zeros(0, dtype=np.int64)
        singles = np.bincount(np.concatenate([none, *parts]), minlength=vocabulary)
        vocabulary = len(singles)
        pairs = np.concatenate([none, *(one[:-1] * vocabulary + one[1:] for one in parts)])
        triples = np.concatenate(
            [none, *((one[:-2] * vocabulary + one[1:-1]) * vocabulary + one[2:] for one in parts if len(one) > 2)]
        )
        return cls(singles, Table.of(pairs), Table.of(triples))

    def surprise(self, ids: Ids) -> float:
        """Mean negative log-likelihood a token, in nats: the logarithm of the perplexity."""
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) < 2:
            return 0.0
        before, token = ids[:-1], ids[1:]
        kinds = int((self.singles > 0).sum())
        likely = (self.singles[token] + kinds / self._size + 1e-9) / (self.singles.sum() + kinds + 1e-9 * self._size)
        likely = _smoothed(
            self.pairs.look_up(before * self._size + token),
            self._followed.look_up(before),
            self._kinds.look_up(before),
            likely,
        )
        two = ids[:-2] * self._size + ids[1:-1]
        likely[1:] = _smoothed(
            self.triples.look_up(two * self._size + ids[2:]),
            self._followed_pairs.look_up(two),
            self._kinds_of_pairs.look_up(two),
            likely[1:],
        )
        return float(-np.log(likely).mean())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What `from_arrays` takes."""
        return {
            "singles": self.singles.astype(np.int32),
            "pair_keys": self.pairs.keys,
            "pair_counts": self.pairs.counts.astype(np.int32),
            "triple_keys": self.triples.keys,
            "triple_counts": self.triples.counts.astype(np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "NGrams":
        """Read back what `arrays` gave."""
        pairs, triples = (
            Table(arrays[f"{one}_keys"], arrays[f"{one}_counts"].astype(np.int64)) for one in ("pair", "triple")
        )
        return cls(arrays["singles"], pairs, triples)


def _smoothed(counts: Ids, followed: Ids, kinds: Ids, lower: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Witten and Bell's mixture; the lower order alone where the context was never seen."""
    total = followed + kinds
    mixed: npt.NDArray[np.float64] = (counts + kinds * lower) / np.maximum(total, 1)
    return np.where(total > 0, mixed, lower)
