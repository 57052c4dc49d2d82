"""Fields of forms as the pages read them. Knows no page."""

from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator

T = TypeVar("T")


def _none_if_blank(value: Any) -> Any:
    return value or None


# A choice that may stay open: a form sends the empty text for it.
Chosen = Annotated[T | None, BeforeValidator(_none_if_blank)]
