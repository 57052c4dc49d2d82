"""Keys, for admins: the list, a new one whose secret is shown once, and revoking."""

from typing import Annotated, Any

import orjson
from fastapi import Form, Path
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.auth import endpoints as keys_api
from app.auth import service
from app.auth.schemas import KeyCreate
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sending import claim, faults_of, new_token, status_of
from app.dashboard.sessions import Visitor
from app.dashboard.visitors import Administrator
from app.dependencies import RANKS, Read, Write, database
from app.errors import Invalid, ServiceError
from app.paging import After, Asked
from engine.errors import Fault
from engine.faults import from_validation

router = PanelRouter()
ROWS = 50


@router.get("/keys")
def page(
    request: Request,
    visitor: Administrator,
    session: Read,
    after: After = None,
) -> Response:
    """The keys that this admin sees, the newest first."""
    return _page(request, visitor, session, after)


@router.post("/keys")
def create(
    request: Request,
    visitor: Administrator,
    name: Annotated[str, Form(max_length=500)] = "",
    role: Annotated[str, Form(max_length=20)] = "",
    tenant: Annotated[str, Form(max_length=100)] = "",
    token: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Make a key. The secret stands in this page alone: a reload of it makes no second key and shows none again."""
    given = {"name": name.strip(), "role": role, "tenant": tenant.strip()}
    faults: list[Fault] = []
    made: dict[str, Any] | None = None
    status = 201
    try:
        body = KeyCreate.model_validate({field: text for field, text in given.items() if text})
        # A transaction of its own: what is refused takes its claim back.
        with database(request).session() as session:
            made = orjson.loads(
                keys_api.create(request, visitor.identity, claim(request, token, given), session, body).body
            )
    except ValidationError as error:
        faults, status = from_validation(error, KeyCreate), Invalid.status
    except ServiceError as error:
        faults, status = faults_of(error), status_of(error)
    shown = given if made is None else None
    with database(request).reading() as session:
        return _page(request, visitor, session, None, given=shown, made=made, faults=faults, status=status)


@router.post("/keys/{key_id}/revoke")
def revoke(
    request: Request, visitor: Administrator, session: Write, key_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """Revoke a key: it stops at once, and the sessions that it opened end."""
    keys_api.revoke(request, visitor.identity, session, key_id)
    return to("/keys")


def _page(
    request: Request,
    visitor: Visitor,
    session: Session,
    after: str | None,
    *,
    given: dict[str, str] | None = None,
    made: dict[str, Any] | None = None,
    faults: list[Fault] | None = None,
    status: int = 200,
) -> Response:
    listed = orjson.loads(keys_api.page(request, visitor.identity, session, Asked(ROWS, after, "desc")).body)
    return render(
        request,
        "keys.html",
        status=status,
        keys=listed["data"],
        made=made,
        given=given or {},
        faults=faults or [],
        roles=list(RANKS),
        everywhere=service.reach(visitor.identity) is None,
        token=new_token(),
        next=f"/keys?after={listed['last_id']}" if listed["has_more"] else None,
        first="/keys" if after else None,
    )
