"""Who proposes words for a place in a text: a masked language model, or a table of word embeddings. Knows no task.

A proposal comes with a score, higher is likelier; the word that stands there is never among them.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from engine.errors import InvalidData
from engine.word_attacks import STOP_WORDS, Neighbours

Span: TypeAlias = tuple[int, int]
Proposals: TypeAlias = list[tuple[str, float]]
_WORD = re.compile(r"[^\W\d_]{2,}")
_BATCH = 32


class Proposer(Protocol):
    """Words for places."""

    def propose(self, texts: Sequence[str], places: Sequence[Sequence[Span]], most: int) -> list[list[Proposals]]:
        """For each text and each of its places up to `most` proposals, the best first."""


def changeable(text: str) -> list[Span]:
    """Words that may be replaced: letters alone, no word of grammar or negation, no name (a capital in mid-text)."""
    found = []
    for one in _WORD.finditer(text):
        name = one.group()[0].isupper() and one.start() > 0
        if one.group().lower() not in STOP_WORDS and not name:
            found.append(one.span())
    return found


def spliced(text: str, changes: Sequence[tuple[Span, str]]) -> str:
    """The text with words put in, from right to left; nothing outside the places changes."""
    for (start, end), word in sorted(changes, reverse=True):
        was = text[start:end]
        text = text[:start] + (word.capitalize() if was[0].isupper() else word) + text[end:]
    return text


class NearestWords:
    """Nearest whole words in a model's table of embeddings; context enters by the filters that follow."""

    def __init__(self, tokenizer: Tokenizer, weights: Tensor) -> None:
        self._neighbours = Neighbours(tokenizer, weights, most=100)

    def propose(self, texts: Sequence[str], places: Sequence[Sequence[Span]], most: int) -> list[list[Proposals]]:
        """By rank: the table has no notion of a place."""
        return [
            [
                [(word, -float(rank)) for rank, word in enumerate(self._neighbours(text[slice(*place)])[:most])]
                for place in of_text
            ]
            for text, of_text in zip(texts, places, strict=True)
        ]


class MaskedModel:
    """A masked language model with a trained head: every place is hidden from it before it is asked."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        model, told = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True, trust_remote_code=False)
        if told["missing_keys"]:
            raise InvalidData(
                f"{folder.name} has no trained head for masked words: {', '.join(sorted(told['missing_keys'])[:3])}",
                remedy="name a model that was trained with its masked-language head, or leave `generator` out",
            )
        self._model: nn.Module = model.eval()
        self._words = {
            number: token
            for token, number in self._tokenizer.get_vocab().items()
            if _WORD.fullmatch(token) and token.lower() not in STOP_WORDS
        }
        self._allowed = torch.tensor(sorted(self._words))

    @torch.no_grad()
    def propose(self, texts: Sequence[str], places: Sequence[Sequence[Span]], most: int) -> list[list[Proposals]]:
        """By the logit of the masked place, all places of a text hidden at once."""
        found: list[list[Proposals]] = []
        for first in range(0, len(texts), _BATCH):
            together = range(first, min(first + _BATCH, len(texts)))
            found += self._of_batch([texts[i] for i in together], [places[i] for i in together], most)
        return found

    def _of_batch(self, texts: Sequence[str], places: Sequence[Sequence[Span]], most: int) -> list[list[Proposals]]:
        mask = self._tokenizer.mask_token
        hidden = [spliced_mask(text, of_text, mask) for text, of_text in zip(texts, places, strict=True)]
        fed = self._tokenizer(hidden, return_tensors="pt", padding=True, truncation=True)
        logits = self._model(**fed).logits
        found = []
        for row, (text, of_text) in enumerate(zip(texts, places, strict=True)):
            slots = (fed["input_ids"][row] == self._tokenizer.mask_token_id).nonzero()[:, 0].tolist()
            proposals = [
                self._best(logits[row, slot], text[slice(*place)], most)
                for slot, place in zip(slots, of_text, strict=False)
            ]
            found.append(proposals + [[]] * (len(of_text) - len(proposals)))  # what was cut off has none
        return found

    def _best(self, logits: Tensor, word: str, most: int) -> Proposals:
        scores = logits[self._allowed]
        best = scores.topk(min(most + 1, len(scores)))
        named = [
            (self._words[int(self._allowed[at])], float(score))
            for at, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        return [(other, score) for other, score in named if other.lower() != word.lower()][:most]


def spliced_mask(text: str, places: Sequence[Span], mask: str) -> str:
    """The text with a mask at each place and nowhere else."""
    for start, end in sorted(places, reverse=True):
        text = text[:start] + mask + text[end:]
    return text


class Meaning:
    """Sentence embeddings by mean pooling, length 1."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model: nn.Module = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()

    def words(self) -> NearestWords:
        """The nearest words in this model's table."""
        table = self._model.get_input_embeddings().weight  # type: ignore[operator]  # of transformers models
        return NearestWords(self._tokenizer.backend_tokenizer, table)

    @torch.no_grad()
    def of(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(n, width) fp32; texts of similar length share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: list[npt.NDArray[np.float32] | None] = [None] * len(texts)
        for first in range(0, len(order), _BATCH):
            numbers = order[first : first + _BATCH]
            fed = self._tokenizer([texts[i] for i in numbers], return_tensors="pt", padding=True, truncation=True)
            states = self._model(**fed).last_hidden_state
            mask = fed["attention_mask"][..., None]
            pooled = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
            for number, one in zip(numbers, pooled, strict=True):
                found[number] = one
        return np.stack([one for one in found if one is not None])
