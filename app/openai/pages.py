"""How this surface asks for pages: newest first, by `after`, with bounds of its own a list."""

from typing import Annotated, Literal

from fastapi import Depends, Query

from app.paging import Asked

After = Annotated[
    str | None, Query(max_length=80, pattern=r"^[A-Za-z0-9_]+$", description="The last id of the page before.")
]


async def _files(
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most files of the page.")] = 10_000,
    after: After = None,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest or newest first.")] = "desc",
) -> Asked:
    return Asked(limit, after, order)


async def _newest_first(
    limit: Annotated[int, Query(ge=1, le=200, description="Most rows of the page.")] = 20, after: After = None
) -> Asked:
    return Asked(limit, after, "desc")


FilesPage = Annotated[Asked, Depends(_files)]
NewestFirst = Annotated[Asked, Depends(_newest_first)]
