"""What of an input looks manipulated: signals, each a number that is the higher the more suspicious the input.

A signal reads one input alone, so its number never depends on a neighbour. Knows no threshold: what a number means is
for the clean rows of `client.detector` to say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.artifact import Feeds, Input, Package, read_text, softmax
from client.attention import AttentionLaw, features_of
from client.canonical import canonical_text
from client.density import AnswerLaw
from client.errors import BadPackage
from client.ngrams import NGrams
from client.squeezing import fewer_bits, median, with_neighbours, with_usual_words, without_the_rarest
from client.tensors import Arrays

_MASKS = ("[MASK]", "<mask>", "[UNK]", "<unk>")
_TOGETHER = 64  # masked copies of one text that are answered together
_MOST_WORDS = 200  # a longer text is probed at `_TOGETHER` of its words
_LOWEST = 3
_COPIES = 12  # with neighbours in the place of words
_SHARE = 0.3  # of the words: as many as an attack may change

Logits = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Squeezers:
    """How inputs are squeezed. `distance` holds two answers apart: l1, or kl of the squeezed against the plain one."""

    names: tuple[str, ...] = ("bit_depth", "median")
    bits: int = 4
    median: int = 2
    distance: str = "l1"


@dataclass(frozen=True)
class Statistics:
    """What signals know beside the model: counts of training rows, each rare token's usual neighbour, what clean
    attention and clean answers are like, and which words are neighbours, (vocabulary, most), -1 for none.
    """

    ngrams: NGrams | None = None
    usual: npt.NDArray[np.int64] | None = None
    attention: AttentionLaw | None = None
    squeezers: Squeezers = Squeezers()
    answers: AnswerLaw | None = None
    neighbours: npt.NDArray[np.int64] | None = None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """As tensors to be stored."""
        found: dict[str, npt.NDArray[np.generic]] = {} if self.ngrams is None else {**self.ngrams.arrays()}
        for law in (self.attention, self.answers):
            found |= {} if law is None else law.arrays()
        if self.neighbours is not None:
            found["neighbours"] = self.neighbours.astype(np.int32)
        return found if self.usual is None else {**found, "usual": self.usual.astype(np.int32)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, squeezers: Squeezers) -> "Statistics":
        """Read back what `arrays` gave."""
        ngrams = NGrams.from_arrays(arrays) if "singles" in arrays else None
        usual = arrays["usual"].astype(np.int64) if "usual" in arrays else None
        law = AttentionLaw.from_arrays(arrays) if "attention_mean" in arrays else None
        answers = AnswerLaw.from_arrays(arrays) if "answers_means" in arrays else None
        neighbours = arrays["neighbours"].astype(np.int64) if "neighbours" in arrays else None
        return cls(ngrams, usual, law, squeezers, answers, neighbours)


class Examined:
    """One input before the model: its plain answer, and what variants of it are answered."""

    def __init__(self, package: Package, statistics: Statistics, given: Input) -> None:
        self.package = package
        self.statistics = statistics
        self.given = given

    @cached_property
    def feeds(self) -> Feeds:
        """What the file is fed, one row."""
        return self.package.feeds([self.given])

    @cached_property
    def logits(self) -> Logits:
        """The plain answer, (labels,): the input alone in its batch, so that nothing of it is padding."""
        return _answered(self.package, self.feeds)

    @cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        """The text's token ids, (tokens,)."""
        found: npt.NDArray[np.int64] = self.feeds["input_ids"][0]
        return found

    @cached_property
    def words(self) -> list[list[int]]:
        """The places of each word's tokens; special tokens are no words."""
        found: dict[int, list[int]] = {}
        for place, word in enumerate(self.package.texts.encode([self.given])[0].word_ids):
            if word is not None:
                found.setdefault(word, []).append(place)
        return list(found.values())

    @cached_property
    def mask(self) -> int:
        """The id that stands for a word that is not told."""
        return mask_id(self.package)

    def answered(self, rows: npt.NDArray[np.int64]) -> Logits:
        """Logits of variants of the text, (rows, labels), from their ids (rows, tokens)."""
        parts = []
        for start in range(0, len(rows), _TOGETHER):
            part = rows[start : start + _TOGETHER]
            parts.append(self.package.answer({"input_ids": part, "attention_mask": np.ones_like(part)}))
        return np.concatenate(parts).astype(np.float64)

    def probed(self) -> list[list[int]]:
        """The words that are masked in turn: all, or evenly spaced ones of a long text."""
        if len(self.words) <= _MOST_WORDS:
            return self.words
        return [self.words[int(place)] for place in np.linspace(0, len(self.words) - 1, _TOGETHER).round()]


def mask_id(package: Package) -> int:
    """The tokenizer's mask, or its unknown token where it has none."""
    found = (package.texts.tokenizer.token_to_id(name) for name in _MASKS)
    known = next((one for one in found if one is not None), None)
    if known is None:
        raise BadPackage("the tokenizer has neither a mask nor an unknown token", remedy="leave the signal out")
    return known


def doubt(one: Examined) -> float:
    """How unsure the answer is: the log odds against the winning label. Hendrycks and Gimpel 2017."""
    return -float(_lead(one.logits[None], int(one.logits.argmax()))[0])


def perplexity(one: Examined) -> float:
    """How unusual the sequence of tokens is, beside the training rows: mean surprise in nats."""
    if one.statistics.ngrams is None:
        raise BadPackage("the detector has no counts of training rows", remedy="leave the signal perplexity out")
    return one.statistics.ngrams.surprise(one.ids)


def reaction(one: Examined) -> float:
    """How far the answer falls where single words are masked: minus the mean of the three smallest leads.

    An honest text says the same thing with several words; a tuned one stands and falls with a few. After Mosca et al.
    2022, without their classifier.
    """
    winner = int(one.logits.argmax())
    words = one.probed()
    if not words:
        return doubt(one)
    rows = np.tile(one.ids, (len(words), 1))
    for row, word in zip(rows, words, strict=True):
        row[word] = one.mask
    leads = np.sort(_lead(one.answered(rows), winner))[:_LOWEST]
    return -float(leads.mean())


def attention(one: Examined) -> float:
    """How far the attention lies from that of clean training rows of its length; at chance where measured."""
    if one.statistics.attention is None:
        raise BadPackage("the detector does not know clean attention", remedy="leave the signal attention out")
    return one.statistics.attention.distance(features_of(one.package, one.feeds), len(one.ids))


def density(one: Examined) -> float:
    """How far the logits lie from those of the training rows that are answered alike. Lee et al. 2018."""
    if one.statistics.answers is None:
        raise BadPackage("the detector has no answers to training rows", remedy="leave the signal density out")
    return one.statistics.answers.distance(one.logits)


def substitution(one: Examined) -> float:
    """How far the answer falls where words make room for neighbours: minus the mean lead over some random copies.

    After Wang et al. 2022, with the leads in the place of votes.
    """
    if one.statistics.neighbours is None:
        raise BadPackage("the detector knows no neighbours of words", remedy="leave the signal substitution out")
    winner = int(one.logits.argmax())
    alone = [word[0] for word in one.words if len(word) == 1]
    rows = with_neighbours(one.ids, alone, one.statistics.neighbours, _COPIES, _SHARE)
    return -float(_lead(one.answered(rows), winner).mean())


def squeezing(one: Examined) -> float:
    """How far the answer moves where detail is squeezed out: the largest distance over the squeezers."""
    plain = softmax(one.logits)
    how = one.statistics.squeezers
    return max(_distance(how.distance, plain, softmax(_SQUEEZERS[name](one))) for name in how.names)


def _lead(logits: Logits, label: int) -> npt.NDArray[np.float64]:
    """Log odds of one label, (rows,): its logit less the others' log-sum-exp, so that nothing saturates."""
    others = np.delete(logits, label, axis=1)
    highest = others.max(axis=1)
    lead: npt.NDArray[np.float64] = logits[:, label] - highest - np.log(np.exp(others - highest[:, None]).sum(axis=1))
    return lead


def _distance(kind: str, plain: Logits, squeezed: Logits) -> float:
    if kind == "kl":
        return float((squeezed * (np.log(squeezed + 1e-12) - np.log(plain + 1e-12))).sum())
    return float(np.abs(plain - squeezed).sum())


def _answered(package: Package, feeds: Feeds) -> Logits:
    found: Logits = package.answer(feeds)[0].astype(np.float64)
    return found


def _picture(one: Examined, change: Callable[[Image.Image], Image.Image]) -> Logits:
    pictures = one.package.pictures
    pixels = pictures.array(change(pictures.picture(one.given)))
    return _answered(one.package, {"pixel_values": pixels[None]})


def _canonical(one: Examined) -> Logits:
    return _answered(one.package, one.package.feeds([canonical_text(read_text(one.given))]))


def _rare_masked(one: Examined) -> Logits:
    if one.statistics.ngrams is None:
        raise BadPackage("the detector has no counts of training rows", remedy="leave the squeezer rare_word_mask out")
    ids = without_the_rarest(one.ids, one.words, one.statistics.ngrams.singles, one.mask)
    found: Logits = one.answered(ids[None])[0]
    return found


def _usual(one: Examined) -> Logits:
    if one.statistics.usual is None:
        raise BadPackage("the detector has no usual words", remedy="leave the squeezer frequency_substitution out")
    found: Logits = one.answered(with_usual_words(one.ids, one.statistics.usual)[None])[0]
    return found


_SQUEEZERS: Mapping[str, Callable[[Examined], Logits]] = {
    "bit_depth": lambda one: _picture(one, lambda picture: fewer_bits(picture, one.statistics.squeezers.bits)),
    "median": lambda one: _picture(one, lambda picture: median(picture, one.statistics.squeezers.median)),
    "canonical": _canonical,
    "rare_word_mask": _rare_masked,
    "frequency_substitution": _usual,
}

SignalName: TypeAlias = Literal[
    "softmax", "perplexity", "reaction", "squeezing", "attention", "density", "substitution"
]
SIGNALS: Mapping[str, Callable[[Examined], float]] = {
    "softmax": doubt,
    "perplexity": perplexity,
    "reaction": reaction,
    "squeezing": squeezing,
    "attention": attention,
    "density": density,
    "substitution": substitution,
}
"""Every signal by name."""
