"""Tokens of a text with the bytes that each stands for, and the parts that a long text is taken in. Knows no model.

An example is (2, length) int32: token ids, and for each target the bytes of UTF-8 that it stands for, else `NO_TARGET`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.errors import InvalidData
from engine.on_read import OnRead
from engine.ports import Example

NO_TARGET = -1


class Parts(OnRead[Example]):
    """Parts of examples by (example, first token, token behind the last), (n, 3)."""

    def __init__(self, examples: Sequence[Example], table: npt.NDArray[np.int64]) -> None:
        self._examples = examples
        self._table = table
        self._last: tuple[int, Example] | None = None

    def __len__(self) -> int:
        return len(self._table)

    def read(self, index: int) -> Example:
        """Cut one part out; the parts of one text are mostly read one after the other, and it is encoded once."""
        number, start, stop = (int(one) for one in self._table[index])
        if self._last is None or self._last[0] != number:
            self._last = (number, self._examples[number])
        return part(self._last[1], start, stop)


def part(example: Example, start: int, stop: int) -> Example:
    """Some tokens of an example, (2, stop - start); the first has no context in it and is no target."""
    found: Example = example[:, start:stop].copy()
    found[1, :1] = NO_TARGET
    return found


def spans(length: int, most: int) -> list[tuple[int, int]]:
    """(start, stop) of the parts of `length` tokens: neighbours share one token, which is a target in the first."""
    return [(start, min(start + most, length)) for start in range(0, max(1, length - 1), most - 1)]


def token_bytes(text: str, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bytes of UTF-8 from the end of the token before to a token's own end, (tokens,).

    What a tokenizer drops goes to the token behind it, and of tokens that share a character the first has its bytes, so
    the sum is the text's. Offsets: (tokens, 2) in characters.
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    ends = np.concatenate([[0], np.cumsum(widths)])[np.maximum.accumulate(offsets[:, 1])]
    found: npt.NDArray[np.int64] = np.diff(ends, prepend=0)
    return found


def inside(offsets: npt.NDArray[np.int64], learned: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Which tokens begin within one of the spans of characters, (tokens,)."""
    found = np.zeros(len(offsets), dtype=np.bool_)
    for start, stop in learned:
        found |= (offsets[:, 0] >= start) & (offsets[:, 0] < stop)
    return found


def scored(examples: Sequence[Example]) -> bool:
    """Whether any of these rows has a target."""
    return any((example[1] != NO_TARGET).any() for example in examples)


def refuse_unscored(test: Sequence[Example]) -> None:
    """Refuse test rows that no score can rest on.

    Raises:
        InvalidData: none has a target. Over none a likelihood is 0 bits, the best of all scores.
    """
    if len(test) and not scored(test):
        raise InvalidData(
            "no test row has a token that can be scored: texts of one token, or turns that nothing asks for",
            remedy="give test rows of several tokens; in a conversation, answers behind a turn of the user",
        )
