"""Signing in with a key, and out again."""

from typing import Annotated

from fastapi import Form, Query
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard import guard, sessions
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.visitors import Anybody, Reader
from app.dependencies import Write, database, settings
from app.errors import RateLimited
from app.identity import Keys, Rate

router = PanelRouter()


@router.get("/sign-in")
def form(request: Request, visitor: Anybody, onward: Annotated[str | None, Query(alias="next")] = None) -> Response:
    """The form; whoever is signed in already is led on."""
    if visitor is not None:
        return to(guard.own_path(onward))
    return render(request, "sign_in.html", onward=guard.own_path(onward), refused=None)


@router.post("/sign-in")
def sign_in(
    request: Request,
    key: Annotated[str, Form(max_length=500)] = "",
    onward: Annotated[str | None, Form(alias="next", max_length=2000)] = None,
) -> Response:
    """Open a session for the holder of the key; the key itself is kept nowhere."""
    rate: Rate = request.app.state.rate
    if rate.take(f"sign-in of {request.client.host if request.client else 'nobody'}") > 0:
        raise RateLimited("there were too many tries to sign in", remedy="wait a second")
    keys: Keys = request.app.state.keys
    identity = keys.look_up(keys.digest(key.strip())) if key.strip() else None
    if identity is None or identity.role == "rater":
        refused = "This key is not known here, or was revoked." if key.strip() else "Enter a key."
        if identity is not None:
            refused = "This is a rater's key: open the link that it came with."
        return render(request, "sign_in.html", status=401, onward=guard.own_path(onward), refused=refused)
    hours = settings(request).session_hours
    with database(request).session() as session:
        token = sessions.begin(session, identity, hours)
    response = to(guard.own_path(onward))
    guard.give_cookie(request, response, token, hours)
    return response


@router.post("/sign-out")
def sign_out(request: Request, visitor: Reader, session: Write) -> Response:
    """End the session, here and on the server."""
    sessions.end(session, visitor)
    response = to("/sign-in")
    guard.take_cookie(request, response)
    return response
