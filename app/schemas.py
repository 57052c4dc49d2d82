"""Shapes that several domains share: a line of text, a name, a list, a problem."""

import re
from typing import Annotated, Any, Generic, Literal, LiteralString, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

Item = TypeVar("Item")
Text = TypeVar("Text", bound=str)
_CONTROLS = r"\u0000-\u001f\u007f-\u009f"
CONTROL = re.compile(f"[{_CONTROLS}]")
# What reorders a line (bidirectional marks), breaks it, or cannot be seen in it: soft hyphen, joiners, fillers, tags.
_UNSEEN = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0"
    r"\ufff9-\ufffb"
    "\U000e0000-\U000e0fff"
)
_HIDDEN_SET = _CONTROLS + _UNSEEN
_HIDDEN = re.compile(f"[{_HIDDEN_SET}]")


def _without_controls(text: str) -> str:
    if found := CONTROL.search(text):
        # A terminal or a log that shows the text later would obey it.
        said, remedy = "the control character", "leave out control characters, line breaks and tabs too"
        raise _character("control_character", said, found, remedy)
    return text


def _shown_as_it_is(text: str) -> str:
    if found := _HIDDEN.search(_without_controls(text)):
        # Two names that differ by it alone look the same, or one reads as what it is not.
        said, remedy = "one that does not show or turns the line:", "leave out marks of direction, joiners and fillers"
        raise _character("hidden_character", said, found, remedy)
    if not text.strip():
        raise PydanticCustomError("blank", "the name is blank", {"remedy": "send a name that can be read"})
    return text


def _character(code: LiteralString, said: str, found: re.Match[str], remedy: str) -> PydanticCustomError:
    told = {"position": found.start() + 1, "said": said, "code_point": f"U+{ord(found[0]):04X}", "remedy": remedy}
    return PydanticCustomError(code, "character {position} is {said} {code_point}", told)


def plain(text: str) -> str:
    """A text as a name may be: without what controls a line or does not show in it; "" where nothing is left."""
    return _HIDDEN.sub("", text).strip()


OneLine = Annotated[Text, AfterValidator(_without_controls), Field(json_schema_extra={"pattern": f"^[^{_CONTROLS}]*$"})]
"""This text, without the control characters C0, DEL and C1."""
Named = Annotated[
    Text,
    AfterValidator(_shown_as_it_is),
    Field(json_schema_extra={"pattern": rf"^[^{_HIDDEN_SET}]*[^\s{_HIDDEN_SET}][^{_HIDDEN_SET}]*$"}),
]
"""This text as a name that people tell things apart by: not blank, and all of it can be seen."""
Name = Named[Annotated[str, StringConstraints(min_length=1, max_length=200)]]
"""What people call a thing."""
ShortName = Named[Annotated[str, StringConstraints(min_length=1, max_length=64)]]
"""The same where it becomes a part of another name, or stands in a table."""


class ListOf(BaseModel, Generic[Item]):
    """One page of a list."""

    object: Literal["list"]
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


class FaultShown(BaseModel):
    """One fault: `pointer` is a JSON Pointer into the body, "" for the whole of it."""

    model_config = ConfigDict(extra="allow")

    pointer: str
    code: str
    detail: str
    remedy: str


class OpenAIError(BaseModel):
    """The same problem in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | None


class Problem(BaseModel):
    """A refused request (RFC 9457) with every fault that was found."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    remedy: str
    errors: list[FaultShown]
    error: OpenAIError


_SCHEMA = {"$ref": "#/components/schemas/Problem"}
PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {"schema": _SCHEMA}}}
"""What a documented error answer holds."""
