"""The router of the panel: its pages are guarded, protected, and refused as pages. Knows no page."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.dashboard import guard
from app.dashboard.rendering import render
from app.dashboard.visitors import NotSignedIn, looker
from app.dependencies import Router
from app.errors import (
    ENGINE_STATUSES,
    Invalid,
    NotFound,
    ServiceError,
    of_any,
    of_routing,
    problem,
    request_id,
)
from app.validation import of_validation
from engine.errors import EngineError, Fault

log = logging.getLogger(__name__)


class PanelRoute(APIRoute):
    """A route whose answers are pages, also where it refuses."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the guard before it and the headers of a page after it."""
        handle = super().get_route_handler()

        async def panel(request: Request) -> Response:
            try:
                guard.refuse_foreign(request)
                await guard.refuse_nul(request)
                response = await handle(request)
            except NotSignedIn as error:
                response = _sign_in_first(request, error)
            except Exception as error:
                response = refusal(request, error)
            guard.protect(response)
            return response

        return panel


class PanelRouter(Router):
    """A router of pages; none of them stands in the API's document."""

    def __init__(self) -> None:
        super().__init__(route_class=PanelRoute, include_in_schema=False)


def install(service: FastAPI) -> None:
    """Let a browser that asks for a page which is nowhere be told so on a page."""
    answer = service.exception_handlers[HTTPException]

    async def lost(request: Request, error: HTTPException) -> Response:
        if error.status_code != 404 or request.url.path.startswith("/v1") or not _wants_page(request):
            told: Response = answer(request, error)  # type: ignore[assignment]  # typed as perhaps a coroutine
            return told
        await looker(request)
        page = refusal(request, NotFound(f"no page {request.url.path}", remedy="follow the navigation"))
        guard.protect(page)
        return page

    service.add_exception_handler(HTTPException, lost)  # type: ignore[arg-type]  # it is only called with its own


def refusal(request: Request, error: Exception) -> Response:
    """What went wrong, as a page; as a problem for a script of a page."""
    known = _known(request, error)
    status = ENGINE_STATUSES.get(type(error), known.status) if isinstance(error, EngineError) else known.status
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, request_id(request), exc_info=error)
    if not _wants_page(request):
        return problem(request, known, status=status)
    faults = known.faults or [Fault("", known.code, known.detail, known.remedy)]
    page = render(
        request, "problem.html", status=status, problem=known, number=status, faults=faults, id=request_id(request)
    )
    page.headers.update({name: value for name, value in known.headers.items() if name != "WWW-Authenticate"})
    return page


def _known(request: Request, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, EngineError):
        return Invalid(error.detail, code=error.code, remedy=error.remedy, faults=error.faults)
    if isinstance(error, RequestValidationError):
        return of_validation(request, error)
    if isinstance(error, HTTPException):
        return of_routing(error, remedy="open the page and send its form")
    return of_any(error)


def _sign_in_first(request: Request, error: NotSignedIn) -> Response:
    if not _wants_page(request):
        return problem(request, error)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    onward = f"?next={quote(path)}" if request.method in guard.SAFE and path != "/jobs" else ""
    return RedirectResponse(f"/sign-in{onward}", 303)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
