"""Searches for small changes of a text that a model answers wrongly, by asking it alone. Knows no task and no file.

A word's place is what the search changes, one at a time: first the words whose loss the answer feels most, each to the
candidate that hurts the most, until the answer flips. `ask` maps texts to logits (n, labels), so whatever answers is
attacked: the file that ships, rounded or not.
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from client.canonical import LOOK_ALIKES
from engine.calibration import probabilities

Ask = Callable[[Sequence[str]], npt.NDArray[np.float32]]
Candidates = Callable[[str], Sequence[str]]

WORD = re.compile(r"[^\W\d_]{2,}")
"""What an attack takes for a word."""
_ROWS_AT_ONCE = 1024  # of a table of embeddings, beside all the others
_LIKE = {latin: other for other, latin in reversed(LOOK_ALIKES.items())}
# Words that carry a sentence's grammar: to change them breaks the sentence and not the model.
_STOP_WORDS = """
a an the and or but if then than so as at by for from in into of off on onto out over to up with about after
again against all am any are be because been before being below between both can could did do does doing down
during each few further had has have having he her here hers him his how i is it its itself just me more most
my no nor not now once only other our ours own same she should some such that their theirs them there these
they this those through too under until very was we were what when where which while who whom why will would
you your yours never none nothing nobody neither without
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Attacked:
    """One text under attack.

    Attributes:
        flipped: the text at the first wrong answer; None where the budget did not suffice.
        confident: the text once the wrong answer had `confidence`; None where it never had.
        queries: texts that the model was asked.
        changed: words that were changed up to the first wrong answer, of `words`.
    """

    original: str
    flipped: str | None
    confident: str | None
    queries: int
    changed: int
    words: int


@dataclass(frozen=True)
class Budget:
    """What a search may spend: the share of the words to be changed, texts to be asked, and when it is content."""

    max_words: float = 0.3
    max_queries: int = 500
    confidence: float = 0.0


def attack_text(ask: Ask, text: str, label: int, candidates: Candidates, budget: Budget, mask: str) -> Attacked:
    """Change words of a text that is answered rightly, greedily, until it is not.

    Source: Jin et al. 2020 (TextFooler), algorithm 1, without its sentence encoder.
    """
    search = _Search(ask, text, label, budget)
    spans = [one.span() for one in WORD.finditer(text) if one.group().lower() not in STOP_WORDS]
    allowed = max(1, int(budget.max_words * len(text.split())))
    for place in search.by_weight(spans, mask):
        if search.done or len(search.changes) >= allowed:
            break
        search.change(spans[place], list(candidates(text[slice(*spans[place])])))
    flipped = search.flipped
    changed = search.changed_at_flip if flipped is not None else len(search.changes)
    return Attacked(text, flipped, search.confident, search.queries, changed, len(text.split()))


class _Search:
    """The state of one text's search: which spans were changed to what, and what the answer has come to."""

    def __init__(self, ask: Ask, text: str, label: int, budget: Budget) -> None:
        self._ask, self._text, self._label, self._budget = ask, text, label, budget
        self.changes: dict[tuple[int, int], str] = {}
        self.queries = 0
        self.flipped: str | None = None
        self.confident: str | None = None
        self.changed_at_flip = 0
        self._right = 1.0

    @property
    def done(self) -> bool:
        """Whether there is nothing more to win, or nothing left to spend."""
        wanted = self.confident if self._budget.confidence else self.flipped
        return wanted is not None or self.queries >= self._budget.max_queries

    def by_weight(self, spans: Sequence[tuple[int, int]], mask: str) -> list[int]:
        """The places in the order of how far the answer falls without their word."""
        spans = spans[: max(0, self._budget.max_queries - self.queries - 1)]
        if not spans:
            return []
        scores = self._probabilities([self._text, *(_replaced(self._text, {span: mask}) for span in spans)])
        right = scores[:, self._label]
        self._right = float(right[0])
        order: list[int] = np.argsort(right[1:], kind="stable").tolist()
        return order

    def change(self, span: tuple[int, int], options: Sequence[str]) -> None:
        """Take the option that lowers the right answer's probability the most, where one lowers it at all."""
        options = options[: max(0, self._budget.max_queries - self.queries)]
        if not options:
            return
        texts = [_replaced(self._text, {**self.changes, span: option}) for option in options]
        scores = self._probabilities(texts)
        best = int(scores[:, self._label].argmin())
        if scores[best, self._label] >= self._right:
            return
        self.changes[span] = options[best]
        self._right = float(scores[best, self._label])
        wrong = int(scores[best].argmax())
        if wrong == self._label:
            return
        if self.flipped is None:
            self.flipped, self.changed_at_flip = texts[best], len(self.changes)
        if scores[best, wrong] >= self._budget.confidence:
            self.confident = texts[best]

    def _probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        self.queries += len(texts)
        return probabilities(self._ask(texts))


def _replaced(text: str, changes: Mapping[tuple[int, int], str]) -> str:
    for (start, end), word in sorted(changes.items(), reverse=True):
        text = text[:start] + word + text[end:]
    return text


class Neighbours:
    """For each word of a model's own vocabulary the nearest ones in its table of embeddings.

    Neighbours, not synonyms: they include opposites and sister terms ("madrid", "lisbon"), so meaning may change.
    """

    def __init__(self, tokenizer: Tokenizer, weights: Tensor, *, most: int = 15, least_cosine: float = 0.35) -> None:
        self._ids = {
            token: number
            for token, number in sorted(tokenizer.get_vocab().items())
            if WORD.fullmatch(token) and token.isascii() and token.lower() not in STOP_WORDS and number < len(weights)
        }
        self._tokens = list(self._ids)
        self._rows = {token: row for row, token in enumerate(self._tokens)}
        table = weights.detach().float().cpu()[list(self._ids.values())]
        self._table = torch.nn.functional.normalize(table - table.mean(dim=0), dim=1) if len(table) else table
        self._most, self._least = most, least_cosine
        self._found: dict[str, list[str]] = {}

    def __call__(self, word: str) -> list[str]:
        """Up to `most` neighbours with a cosine above `least_cosine`, the nearest first; in the word's own case."""
        key = word if word in self._rows else word.lower()
        if key not in self._rows:
            return []
        if key not in self._found:
            cosines = self._table @ self._table[self._rows[key]]
            nearest = cosines.topk(min(self._most + 1, len(cosines)))
            self._found[key] = [
                self._tokens[row]
                for row, cosine in zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True)
                if cosine > self._least and self._tokens[row].lower() != key.lower()
            ][: self._most]
        return [_in_case_of(word, one) for one in self._found[key]]

    def table(self, size: int, most: int) -> npt.NDArray[np.int64]:
        """For each of `size` token ids up to `most` of its neighbours' ids, the nearest first, -1 beyond: (size, most).

        The same word in another case is one too.
        """
        found = np.full((size, most), -1, dtype=np.int64)
        ids = np.fromiter(self._ids.values(), dtype=np.int64, count=len(self._ids))
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            rows = torch.arange(start, min(start + _ROWS_AT_ONCE, len(ids)))
            cosines = self._table[rows] @ self._table.T
            cosines[torch.arange(len(rows)), rows] = -1.0
            nearest = cosines.topk(min(most, len(ids)), dim=1)
            near = np.where(nearest.values.numpy() > self._least, ids[nearest.indices.numpy()], -1)
            found[ids[rows.numpy()], : near.shape[1]] = near
        return found


def _in_case_of(word: str, other: str) -> str:
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def swapped_letters(word: str) -> list[str]:
    """The word with two neighbouring inner letters swapped, each way."""
    pairs = range(1, len(word) - 2)
    found = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in pairs if word[i] != word[i + 1]]
    return list(dict.fromkeys(found))


def look_alikes(word: str) -> list[str]:
    """The word with one letter, and with all but one, from another script: the same to the eye."""
    places = [i for i, sign in enumerate(word) if sign in _LIKE]
    if len(word) < 2 or not places or not all(sign in string.ascii_letters for sign in word):
        return []
    every = places if len(places) < len(word) else places[1:]
    return list(dict.fromkeys(_with(word, some) for some in (every, *([i] for i in places))))


def _with(word: str, places: Sequence[int]) -> str:
    return "".join(_LIKE[sign] if i in places else sign for i, sign in enumerate(word))
