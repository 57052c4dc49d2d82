"""Texts with slips of the keyboard in some of their words, and what a language model makes of them. Knows no task."""

from collections.abc import Sequence

import numpy as np

from engine.conversations import each_message
from engine.ports import Payload, text_of
from engine.word_attacks import WORD, swapped_letters


def noised(text: str, share: float, drawn: np.random.Generator) -> tuple[str, int, int]:
    """The text with two inner letters swapped in about `share` of the words that have such; changed words, and words.

    It keeps its length in bytes, so scores a byte compare alike.
    """
    changed = 0
    for one in reversed(list(WORD.finditer(text))):
        options = swapped_letters(one.group())
        if options and drawn.random() < share:
            text = text[: one.start()] + options[int(drawn.integers(len(options)))] + text[one.end() :]
            changed += 1
    return text, changed, len(text.split())


def noised_rows(
    rows: Sequence[Payload], share: float, drawn: np.random.Generator, *, chat: bool
) -> tuple[list[Payload], float]:
    """Rows of texts, or of conversations, with slips in them; and the share of all words that changed."""
    counts = np.zeros(2)

    def slip(payload: Payload) -> Payload:
        text, *told = noised(text_of(payload), share, drawn)
        counts[:] += told
        return text

    one = each_message(slip) if chat else slip
    return [one(row) for row in rows], float(counts[0] / max(1.0, counts[1]))
