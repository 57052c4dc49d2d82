"""What the service refuses, as exceptions, and the one table that turns any exception into a problem (RFC 9457).

Knows no domain: the domains raise these with their own words. An answer carries OpenAI's `error` member as well, so
that its clients read it too.

ServiceError
├── Unparsable (400)          the body or the address cannot be read
├── Unauthorized (401)        no key, or not one of ours
│   └── NotSignedIn (401)     nobody is signed in to the panel
├── Forbidden (403)           the key's role does not reach so far
├── NotFound (404)            nothing of this tenant has that id
├── MethodNotAllowed (405)    the path has other methods
├── Stalled (408)             the rest of the body does not come
├── Conflict (409)            the state does not allow it now
├── PreconditionFailed (412)  `If-Match` names an older version
├── TooLarge (413)            over a cap of the settings
├── UnsupportedMedia (415)    another content type is wanted
├── RangeNotSatisfiable (416) no byte of the file lies in the range
├── Invalid (422)             wrong choices, every one of them listed
│   └── OddAddress (422)      the address asks for what the route does not know
├── RateLimited (429)         too many requests of one key
└── Unavailable (503)         a dependency is down
"""

import errno
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from fastapi import FastAPI
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from app.ids import new_id
from app.storage import StoreDown
from engine.errors import EngineError, Fault, InvalidData, InvalidPlan

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2


class ServiceError(Exception):
    """A request is refused; `faults` lists every reason with its remedy."""

    status: ClassVar[int] = 500
    code: str = "internal"
    title: ClassVar[str] = "The service failed"
    remedy: str = ""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        remedy: str = "",
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.remedy = remedy or type(self).remedy
        self.faults = list(faults)
        self.headers = dict(headers or {})


class Unparsable(ServiceError):
    """The body or the address cannot be read."""

    status, code, title = 400, "unparsable", "The request cannot be read"
    remedy = "send one JSON object in UTF-8, neither nested deep nor with numbers of thousands of digits"


class Unauthorized(ServiceError):
    """No key, or not one of ours."""

    status, code, title = 401, "unauthorized", "A valid key is needed"
    remedy = "send `Authorization: Bearer KEY`"

    def __init__(self, detail: str, *, remedy: str = "") -> None:
        super().__init__(detail, remedy=remedy, headers={"WWW-Authenticate": 'Bearer realm="fiftytwo"'})


class Forbidden(ServiceError):
    """The key's role does not reach so far."""

    status, code, title = 403, "forbidden", "The key may not do this"


class NotFound(ServiceError):
    """Nothing of this tenant has that id."""

    status, code, title = 404, "not_found", "There is nothing here"


class Stalled(ServiceError):
    """The rest of the body does not come."""

    status, code, title = 408, "body_stalled", "The body stopped short"
    remedy = "send the whole body without a long pause"


class Conflict(ServiceError):
    """The state does not allow it now."""

    status, code, title = 409, "conflict", "The present state does not allow this"


class PreconditionFailed(ServiceError):
    """`If-Match` names an older version."""

    status, code, title = 412, "stale", "The object has changed since it was read"


class TooLarge(ServiceError):
    """Over a cap of the settings."""

    status, code, title = 413, "too_large", "The request is larger than this server takes"


class UnsupportedMedia(ServiceError):
    """Another content type is wanted."""

    status, code, title = 415, "unsupported_media_type", "The body has another content type than is wanted"


class RangeNotSatisfiable(ServiceError):
    """No byte of the file lies in the range."""

    status, code, title = 416, "range_not_satisfiable", "No byte of the file lies in the range"


class Invalid(ServiceError):
    """Wrong choices, every one of them listed."""

    status, code, title = 422, "invalid", "The request has faults"


class OddAddress(Invalid):
    """The address asks for what the route does not know."""


class MethodNotAllowed(ServiceError):
    """The path has other methods."""

    status, code, title = 405, "method_not_allowed", "This route has other methods"


class RateLimited(ServiceError):
    """Too many requests of one key."""

    status, code, title = 429, "rate_limited", "Too many requests"


class Unavailable(ServiceError):
    """A dependency is down."""

    status, code, title = 503, "unavailable", "A part of the service is down"

    def __init__(self, detail: str, *, code: str | None = None, remedy: str = "try again shortly") -> None:
        super().__init__(detail, code=code, remedy=remedy, headers={"Retry-After": str(RETRY_SECONDS)})


# Errors of the engine by status; any other is a failure of ours.
ENGINE_STATUSES: dict[type[EngineError], int] = {InvalidPlan: 422, InvalidData: 422}
# Statuses that routing itself answers with.
_ROUTED = Unparsable, Unauthorized, Forbidden, NotFound, TooLarge, UnsupportedMedia
ROUTING_ERRORS: dict[int, type[ServiceError]] = {one.status: one for one in _ROUTED}
_FURTHER = "further_faults"
# Refusals that are for the sender to mend; who may not ask is told nothing else, and what is not there has no faults.
_OF_WHAT_WAS_SENT = {Unparsable.status, TooLarge.status, UnsupportedMedia.status, Invalid.status}


def request_id(request: Request) -> str:
    """The id of this request, given to it at the edge."""
    return str(request.scope.setdefault("state", {}).setdefault("request_id", new_id("req")))


def tell_further(request: Request, fault: Fault) -> None:
    """Keep a fault that was found before the body was looked at, to be told along with those of the body.

    Whoever finds it still has to refuse the request, where nothing else does.
    """
    request.scope.setdefault("state", {}).setdefault(_FURTHER, []).append(fault)


def problem(request: Request, error: ServiceError, *, status: int | None = None, title: str | None = None) -> Response:
    """The answer that tells of `error`; `status` and `title` stand in for those of its class."""
    status, title = status or error.status, title or error.title
    further = request.scope.get("state", {}).get(_FURTHER, ()) if status in _OF_WHAT_WAS_SENT else ()
    if any(one not in error.faults for one in further):
        error = _with_others(error, [one for one in further if one not in error.faults])
        if status == TooLarge.status:  # that is not all
            status, title = error.status, error.title
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    # A client that reads `errors` alone finds the fault there too, whatever the status.
    faults = _faults_of(error)
    once = {"X-Should-Retry": "false"} if status == 409 else {}  # OpenAI's clients would send it again
    body = {
        "type": f"/problems/{error.code.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": error.detail,
        "instance": request_id(request),
        "code": error.code,
        "remedy": error.remedy or faults[0].remedy,
        "errors": [asdict(fault) for fault in faults],
        "error": {
            "message": error.detail,
            "type": kinds.get(status, fallback),
            "param": faults[0].pointer.strip("/").replace("/", ".") or None,
            "code": error.code,
        },
    }
    return Response(json.dumps(body), status, headers={**once, **error.headers}, media_type=MEDIA_TYPE)


def _faults_of(error: ServiceError) -> list[Fault]:
    return error.faults or [Fault("", error.code, error.detail, error.remedy)]


def _with_others(error: ServiceError, others: Sequence[Fault]) -> Invalid:
    """The error with further faults, as one that tells of several."""
    detail = "; ".join([error.detail, *(one.detail for one in others)])
    code = None if isinstance(error, TooLarge) else error.code
    faults = [*_faults_of(error), *others]
    return Invalid(detail, code=code, remedy="mend every listed fault", faults=faults, headers=error.headers)


def of_any(error: Exception) -> ServiceError:
    """Our error for one of a library's: a dependency that is down, a value that it cannot hold, or a defect of ours."""
    if isinstance(error, DataError):
        return Invalid("a value cannot be stored", remedy="leave out characters such as NUL and numbers out of range")
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return Unavailable("the database does not answer", code="database_unavailable")
    if isinstance(error, StoreDown):
        return Unavailable("the store of files does not answer", code="storage_unavailable")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable("the disk of the service is full", code="disk_full", remedy="ask the operator for room")
    return ServiceError("the service failed; its log has the reason under this request's id", remedy="report the id")


def of_routing(error: HTTPException, *, remedy: str = "") -> ServiceError:
    """Our error for one that the framework raises of itself, such as for a form that cannot be read."""
    return ROUTING_ERRORS.get(error.status_code, ServiceError)(str(error.detail), remedy=remedy)


def answer_any(request: Request, error: Exception) -> Response:
    """The answer to an exception that no handler knew; the reason goes to the log only."""
    known = of_any(error)
    if known.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, request_id(request), exc_info=error)
    return problem(request, known)


def _engine_error(request: Request, error: EngineError) -> Response:
    status = ENGINE_STATUSES.get(type(error), 500)
    known = Invalid(error.detail, code=error.code, remedy=error.remedy, faults=error.faults)
    return problem(request, known, status=status, title=error.title)


def _http_error(request: Request, error: HTTPException) -> Response:
    if isinstance(error.__cause__, ServiceError):
        return problem(request, error.__cause__)
    if error.status_code == 404:
        return problem(request, NotFound(f"no route {request.url.path}", remedy="/docs lists every route"))
    if error.status_code == 405:
        allowed = ", ".join(_methods(request))
        detail, headers = f"{request.method} is not allowed here", {"Allow": allowed}
        return problem(request, MethodNotAllowed(detail, remedy=f"use one of {allowed}", headers=headers))
    return problem(request, of_routing(error), status=error.status_code)


def _methods(request: Request) -> list[str]:
    """Every method of this path: routing itself only knows those of the first route that it tried."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    matching = (operations for path, operations in paths.items() if compile_path(path)[0].match(request.url.path))
    found = {method.upper() for operations in matching for method in operations}
    return sorted(found | {"HEAD"} if "GET" in found else found)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem."""
    handlers: dict[type[Exception], Any] = {  # each is only called with its own
        ServiceError: problem,
        EngineError: _engine_error,
        HTTPException: _http_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
