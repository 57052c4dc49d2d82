"""JSON with one spelling for one value: RFC 8785. Knows nothing of receipts.

A signature over a document holds only if whoever checks it spells every number and key the same way.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_EXACT = 2**53  # beyond it an integer is spelled as its double: every JSON reader may take it for one


def encode(value: Json) -> bytes:
    """The canonical UTF-8 bytes.

    Raises:
        ValueError: for a number that JSON cannot hold, or a text that is not Unicode.
    """
    return _text(value).encode("utf-8")


def _text(value: Json) -> str:
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value) if abs(value) <= _EXACT else _number(float(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        # Keys are ordered as UTF-16, which differs from code points beyond the basic plane (section 3.2.3).
        ordered = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_text(key)}:{_text(entry)}" for key, entry in ordered) + "}"
    return "[" + ",".join(map(_text, value)) + "]"


def _number(value: float) -> str:
    """A double as ECMAScript's Number.prototype.toString spells it."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if value == 0:
        return "0"
    if value < 0:
        return "-" + _number(-value)
    # repr gives the shortest digits that read back equal, as ECMAScript does; only the layout differs.
    mantissa, _, exponent = f"{value!r}".partition("e")
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + part) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    sign = "-" if point < 1 else "+"
    return f"{digits[0]}{'.' + digits[1:] if count > 1 else ''}e{sign}{abs(point - 1)}"
