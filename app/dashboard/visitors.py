"""What a page may ask for: who looks at it, at least of a role. Knows no page."""

from typing import Annotated

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.dashboard import guard, sessions
from app.dashboard.sessions import Visitor
from app.dependencies import RANKS, database
from app.errors import Forbidden, RateLimited, Unauthorized
from app.identity import Rate, Role


class NotSignedIn(Unauthorized):
    """Nobody is signed in; a page leads to the form."""

    remedy = "sign in with a key"


async def looker(request: Request) -> Visitor | None:
    """Who looks, if anybody is signed in."""
    token = request.cookies.get(guard.cookie_name(request))
    if not token:
        return None
    found = await run_in_threadpool(sessions.visitor, database(request), token)
    request.state.visitor = found
    return found


class _AtLeast:
    """Somebody of this role or above it, within the rate of their key."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Visitor:
        found = await looker(request)
        if found is None:
            raise NotSignedIn("nobody is signed in here, or the session has ended")
        rate: Rate = request.app.state.rate
        if (wait := rate.take(found.identity.key)) > 0:
            detail = f"this key makes more than {rate.per_second:g} requests a second"
            headers = {"Retry-After": str(max(1, round(wait)))}
            raise RateLimited(detail, remedy="wait a moment, then load the page again", headers=headers)
        if RANKS[found.identity.role] < RANKS[self.role]:
            detail = f"a key of role {found.identity.role} may not do this"
            raise Forbidden(detail, remedy=f"sign in with a key of role {self.role}")
        return found


Anybody = Annotated[Visitor | None, Depends(looker)]
Reader = Annotated[Visitor, Depends(_AtLeast("viewer"))]
Writer = Annotated[Visitor, Depends(_AtLeast("member"))]
Administrator = Annotated[Visitor, Depends(_AtLeast("admin"))]
