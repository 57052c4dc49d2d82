"""Shapes that answers of several domains share: a list, a problem."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")


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
