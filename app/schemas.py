"""Shapes that several domains share: a line of text, a name, a list, a problem."""

import re
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

Item = TypeVar("Item")
Text = TypeVar("Text", bound=str)
CONTROL = re.compile(r"[\u0000-\u001f\u007f-\u009f]")


def _without_controls(text: str) -> str:
    if found := CONTROL.search(text):
        # A terminal or a log that shows the text later would obey it.
        raise PydanticCustomError(
            "control_character",
            "character {position} is the control character {code_point}",
            {
                "position": found.start() + 1,
                "code_point": f"U+{ord(found[0]):04X}",
                "remedy": "leave out control characters, line breaks and tabs too",
            },
        )
    return text


OneLine = Annotated[
    Text,
    AfterValidator(_without_controls),
    Field(json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"}),
]
"""This text, without the control characters C0, DEL and C1."""
Name = OneLine[Annotated[str, StringConstraints(min_length=1, max_length=200)]]
"""What people call a thing."""


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
