"""Fields of a form out of a JSON Schema, and their values back out of what the form posts. Knows no page and no job.

A form posts text. What is no number where one is wanted stays text, so that the API itself says what is wrong with it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from app.dashboard import wording

FieldKind: TypeAlias = Literal["whole", "real", "text", "choice", "several", "switch", "list"]
_UNBOUNDED = 2**31  # a bound from here on is the machine's, and says nothing to people
_NUMBERS = ("integer", "number")
_TYPES: Mapping[str, FieldKind] = {"integer": "whole", "number": "real", "boolean": "switch", "array": "list"}


class Given:
    """What a form posted, or what it is filled with: texts by the name of their field."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._texts: dict[str, list[str]] = {}
        for name, text in pairs:
            self._texts.setdefault(name, []).append(text)

    def __contains__(self, name: str) -> bool:
        return name in self._texts

    def text(self, name: str, default: str = "") -> str:
        """The last text of this name: a hidden field before a checkbox says what its absence means."""
        return self._texts[name][-1].strip() if name in self._texts else default

    def texts(self, name: str) -> list[str]:
        """Every text of this name."""
        return self._texts.get(name, [])

    def lines(self, name: str) -> list[str]:
        """The lines of a text area that are not blank."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]


@dataclass(frozen=True)
class Field:
    """One field; `name` is the control's, `key` the member of the JSON object that it fills."""

    name: str
    key: str
    label: str
    kind: FieldKind
    default: Any
    nullable: bool
    choices: tuple[Any, ...]
    hint: str

    def value(self, given: Given) -> Any:
        """What the form gives for it; the default where it gives nothing."""
        if self.name not in given:
            return self.default
        text = given.text(self.name)
        if self.kind == "switch":
            return text == "true"
        if self.kind == "several":
            return [one for one in given.texts(self.name) if one] or self.default
        if self.kind == "list":
            return given.lines(self.name) or (None if self.nullable else [])
        if not text:
            return None if self.nullable else self.default
        if self.kind == "choice":
            return next((one for one in self.choices if str(one) == text), text)
        return number(text) if self.kind in ("whole", "real") else text

    def shown(self, given: Given) -> str:
        """The text of its control."""
        return given.text(self.name) if self.name in given else text_of(self.default)

    def ticked(self, given: Given) -> list[str]:
        """The choices that are ticked, of a field of several."""
        return given.texts(self.name) if self.name in given else list(self.default or ())


def fields_of(
    schema: Mapping[str, Any], prefix: str = "", leave_out: Iterable[str] = (), null: str | None = None
) -> list[Field]:
    """A field for each property of an object that a form can hold; those that leave no choice have none.

    Args:
        null: what hints call null; None: as the control shows it.
    """
    found = [
        _field(f"{prefix}{key}", key, one, null)
        for key, one in schema["properties"].items()
        if key not in leave_out and "$ref" not in one
    ]
    return [field for field in found if field is not None]


def values_of(fields: Sequence[Field], given: Given) -> dict[str, Any]:
    """Members for a JSON object: what differs from its default."""
    values = {field.key: (field.value(given), field.default) for field in fields}
    return {key: value for key, (value, default) in values.items() if value != default}


def text_of(value: Any) -> str:
    """A value as the text of a control."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "\n".join(text_of(one) for one in value)
    if isinstance(value, float) and not (value.is_integer() and abs(value) < _UNBOUNDED):
        return repr(value)
    return str(int(value)) if isinstance(value, float) else str(value)


def number(text: str) -> int | float | str:
    """The number that a text says, else the text."""
    for kind in (int, float):
        try:
            value = kind(text.replace(wording.THIN, "").replace(" ", ""))
            return value if math.isfinite(value) else text
        except (ValueError, OverflowError):  # a whole number may be greater than any float
            continue
    return text


def _field(name: str, key: str, schema: Mapping[str, Any], null: str | None) -> Field | None:
    variants = schema.get("anyOf", [schema])
    nullable = any(one.get("type") == "null" for one in variants)
    told: Mapping[str, Any] = next((one for one in variants if one.get("type") != "null"), {})
    choices = tuple(told.get("enum", (told["const"],) if "const" in told else ()))
    kind: FieldKind = _TYPES.get(told.get("type", ""), "text")
    if kind == "list" and (several := told.get("items", {}).get("enum")):
        kind, choices = "several", tuple(several)
    elif choices:
        kind = "choice"
    if "$ref" in told or (kind == "choice" and len(choices) == 1 and not nullable):
        return None
    default = schema.get("default")
    null = null or ("none ticked" if kind == "several" else "empty")
    said = _sentence(schema.get("description", ""), null, choices)
    hint = " ".join(part for part in (said, _bounds(told, default)) if part)
    # The schema of a field whose default is found later has null as its default, and takes it.
    return Field(name, key, label_of(key), kind, default, nullable or default is None, choices, hint)


def label_of(key: str) -> str:
    """A member's name as a label: `max_tokens` as "Max tokens"."""
    said = wording.words(key)
    return said[:1].upper() + said[1:]


def _sentence(text: str, empty: str, choices: Sequence[Any]) -> str:
    """A description as a sentence; `empty` says what of the control stands for null."""
    said = re.sub(r"\b(null|None)\b(?=[ :,;])", empty, text).strip().rstrip(".").replace("`", "")
    said = re.sub(r"\bfalse:", "unticked:", re.sub(r"\btrue:", "ticked:", said, flags=re.I), flags=re.I)
    first = re.split(r"\W", said, maxsplit=1)[0]
    return (said if first in choices else said[:1].upper() + said[1:]) + "." if said else ""


def _bounds(schema: Mapping[str, Any], default: Any) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    low = f"from {wording.number(least)}" if least is not None else ""
    low = f"above {wording.number(above)}" if above is not None else low
    high = ""
    if most is not None and most < _UNBOUNDED:
        high = f"{' ' if least is not None else ', '}to {wording.number(most)}"
    elif below is not None and below < _UNBOUNDED:
        high = f", below {wording.number(below)}"
    plain = schema.get("type") in _NUMBERS and "enum" not in schema
    usual = f", default {wording.number(default)}" if plain and default is not None else ""
    text = (low + high + usual).removeprefix(", ")
    return text[:1].upper() + text[1:] + "." if text else ""
