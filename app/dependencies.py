"""What an endpoint may ask for: who calls, a session, the page, the parts of the service.

`Router` is the edge of the transaction. A `def` endpoint that asks for a `Write` session runs, commits and only then
answers, all in one visit to the thread pool; a session that were opened and committed in visits of its own could hold
the database while every thread waits for it. Knows no domain.
"""

import difflib
import functools
import inspect
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends
from fastapi.dependencies.models import Dependant
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.database import Database
from app.errors import Forbidden, OddAddress, RateLimited, Unauthorized
from app.identity import Identity, Keys, Rate, Role
from app.settings import Settings
from app.storage import Storage
from app.turns import Turns
from engine.errors import Fault

RANKS: dict[Role, int] = {"rater": -1, "viewer": 0, "member": 1, "admin": 2}


class Queue(Protocol):
    """What the API needs of the queue: a bell that never raises."""

    def ring(self) -> None:
        """Tell the workers that there is a job."""

    def close(self) -> None:
        """Ring no more."""


class NoQueue:
    """Stands for a queue where no broker is set: jobs wait until a worker looks by itself."""

    def ring(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Opener:
    """Stands for a session until the endpoint's thread opens it."""

    open: Callable[[], AbstractContextManager[Session]]


class Router(APIRouter):
    """A router whose endpoints get their sessions opened and committed around the call."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add the endpoint, wrapped in its transaction where it asks for a session."""
        super().add_api_route(path, _in_transaction(endpoint), **options)


def _in_transaction(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(endpoint):
        return endpoint

    @functools.wraps(endpoint)
    def call(**values: Any) -> Any:
        with ExitStack() as stack:
            for name, value in values.items():
                if isinstance(value, Opener):
                    values[name] = stack.enter_context(value.open())
            return endpoint(**values)

    return call


async def _write(request: Request) -> Opener:
    return Opener(request.app.state.database.session)


async def _read(request: Request) -> Opener:
    return Opener(request.app.state.database.reading)


Write = Annotated[Session, Depends(_write)]
Read = Annotated[Session, Depends(_read)]


async def identify(request: Request) -> Identity:
    """The caller, by its key; 401 without a valid one, 429 beyond its rate, 422 for unknown query parameters."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("the request carries no key")
    keys: Keys = request.app.state.keys
    digest = keys.digest(secret.strip())
    identity = keys.remembered(digest) or await run_in_threadpool(keys.look_up, digest)
    if identity is None:
        raise Unauthorized(
            "the key is not known here, or was revoked",
            remedy="use another key; on the server's machine, `fiftytwo admin-key` makes one where all are lost",
        )
    rate: Rate = request.app.state.rate
    wait = rate.take(identity.key)
    if wait > 0:
        raise RateLimited(
            f"this key makes more than {rate.per_second:g} requests a second",
            remedy="wait as long as Retry-After says",
            headers={"Retry-After": str(max(1, round(wait)))},
        )
    if request.scope["query_string"]:
        _refuse_odd_query(request)
    return identity


def _refuse_odd_query(request: Request) -> None:
    """Refuse names that the route does not know, and those that come twice, of which one value would be left unread.

    Names with brackets, such as `metadata[team]`, the route documents itself.
    """
    route = request.scope["route"]
    known = _query_names(route.dependant)
    deep = {
        one["name"] for one in (route.openapi_extra or {}).get("parameters", ()) if one.get("style") == "deepObject"
    }
    faults = []
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known and not ("[" in name and name.partition("[")[0] in deep):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known) or 'none'}"
            faults.append(Fault("", "unknown_parameter", f"there is no query parameter {name[:80]!r} here", remedy))
        elif times > 1:
            said = f"the query parameter {name[:80]!r} comes {times} times"
            faults.append(Fault("", "repeated_parameter", said, "send it once"))
    if faults:
        raise OddAddress("; ".join(fault.detail for fault in faults), remedy="mend the address", faults=faults)


def _query_names(dependant: Dependant) -> tuple[str, ...]:
    own = [field.alias for field in dependant.query_params]
    return (*own, *(name for part in dependant.dependencies for name in _query_names(part)))


class _AtLeast:
    """A caller of this role or above it, or of one of `others`; 403 for the rest.

    One dependency and no chain: each costs every request.
    """

    def __init__(self, role: Role, *others: Role) -> None:
        self.role = role
        self.others = others

    async def __call__(self, request: Request) -> Identity:
        identity = await identify(request)
        if RANKS[identity.role] < RANKS[self.role] and identity.role not in self.others:
            raise Forbidden(f"a key of role {identity.role} may not do this", remedy=f"use a key of role {self.role}")
        return identity


viewer = _AtLeast("viewer")
member = _AtLeast("member")
Viewer = Annotated[Identity, Depends(viewer)]
Member = Annotated[Identity, Depends(member)]
Admin = Annotated[Identity, Depends(_AtLeast("admin"))]
Anyone = Annotated[Identity, Depends(_AtLeast("rater"))]
"""Any key, a rater's too: for the route that gives raters their ballots."""
Judge = Annotated[Identity, Depends(_AtLeast("member", "rater"))]
"""Who may cast ballots."""


def settings(request: Request) -> Settings:
    """The settings of this service."""
    found: Settings = request.app.state.settings
    return found


def storage(request: Request) -> Storage:
    """The store of files."""
    found: Storage = request.app.state.storage
    return found


def database(request: Request) -> Database:
    """The database, for the few endpoints that work outside one transaction."""
    found: Database = request.app.state.database
    return found


def turns(request: Request) -> Turns:
    """Turns at checking what is uploaded."""
    found: Turns = request.app.state.checks
    return found


def queue(request: Request) -> Queue:
    """The bell that wakes the workers."""
    found: Queue = request.app.state.queue
    return found
