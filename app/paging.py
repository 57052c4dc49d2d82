"""Lists in pages: which page is asked for, how a query is cut to it, how it is answered.

Knows nothing of what is listed but that its rows have a sortable id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

After = Annotated[
    str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9_]+$", description="The last id of the page before.")
]
Row = TypeVar("Row")
Selected = TypeVar("Selected", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True)
class Asked:
    """The page that was asked for: at most `limit` rows after the id `after`, oldest or newest first."""

    limit: int
    after: str | None
    order: Literal["asc", "desc"]

    def cut(self, query: Selected, by: InstrumentedAttribute[str]) -> Selected:
        """The query for this page's rows and one more, which tells whether the list goes on."""
        if self.after is not None:
            query = query.where(by > self.after if self.order == "asc" else by < self.after)
        return query.order_by(by.asc() if self.order == "asc" else by.desc()).limit(self.limit + 1)


async def _asked(
    limit: Annotated[int, Query(ge=1, le=200, description="Most rows of the page.")] = 20,
    after: After = None,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest or newest first.")] = "desc",
) -> Asked:
    return Asked(limit, after, order)


Page = Annotated[Asked, Depends(_asked)]


def paged(rows: Sequence[Row], page: Asked, to_json: Callable[[Row], dict[str, Any]]) -> dict[str, Any]:
    """The list answer for the rows that a cut query gave."""
    data = [to_json(row) for row in rows[: page.limit]]
    return {
        "object": "list",
        "data": data,
        "has_more": len(rows) > page.limit,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
