"""The routes of the catalogue of instructions."""

import functools
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.dependencies import Router, Viewer
from app.errors import NotFound
from app.schemas import ListOf
from engine.catalogue import describe, named

router = Router(prefix="/v1/instructions", tags=["instructions"])


class InstructionShown(BaseModel):
    """An instruction; `parameters` is a JSON Schema, `needs` and `excludes` give a reason by fact or name."""

    object: Literal["instruction"]
    number: int
    name: str
    band: str
    tier: str
    title: str
    does: str
    tasks: list[str]
    kinds: list[str]
    hooks: list[str]
    provides: list[str]
    needs: dict[str, str]
    excludes: dict[str, str]
    metric: str
    source: str
    parameters: dict[str, Any]


@functools.cache
def _catalogue() -> dict[int, dict[str, Any]]:
    return {one["number"]: {"id": one["name"], **one} for one in describe()}


@router.get("", response_model=ListOf[InstructionShown], summary="List the instructions")
async def page(request: Request, _: Viewer) -> Response:
    """The whole catalogue, by number."""
    data = list(_catalogue().values())
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return answer(request, {"object": "list", "data": data, "has_more": False, **ends})


@router.get("/{choice}", response_model=InstructionShown, summary="Look at an instruction")
async def find(
    request: Request, _: Viewer, choice: Annotated[str, Path(max_length=64, description="Its number or its name.")]
) -> Response:
    """One instruction."""
    kind = named(choice)
    if kind is None:
        raise NotFound(f"no instruction {choice!r}", remedy="GET /v1/instructions lists them")
    return answer(request, _catalogue()[kind.number])
