"""The routes an operator's tools ask: alive, ready, figures; and at the root, where everything else is."""

from functools import partial
from typing import Literal

from fastapi import FastAPI
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from app.auth.service import reach
from app.dependencies import Read, Router, Viewer, database, settings, storage
from app.health.checks import check_broker, check_database, check_storage, states
from app.health.figures import Figures
from app.health.fleet import Fleet

router = Router(tags=["health"])


class Root(BaseModel):
    """What this is, and where to go from here."""

    service: Literal["fiftytwo"]
    version: str
    docs: str
    openapi: str
    instructions: str
    jobs: str


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class DependencyShown(BaseModel):
    """Whether a dependency answers."""

    status: Literal["up", "down"]
    detail: str | None


class Ready(BaseModel):
    """Whether the service can do its work, dependency by dependency."""

    status: Literal["ready", "unready"]
    dependencies: dict[str, DependencyShown]


@router.get("/", response_model=Root, summary="What is here?")
async def root(request: Request) -> Response:
    """The way to the routes, for whoever opens the bare address; a browser is led to the panel."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/jobs", 303, headers={"Vary": "Accept"})
    app: FastAPI = request.app
    places = {"docs": "/docs", "openapi": app.openapi_url}
    places |= {"instructions": "/v1/instructions", "jobs": "/v1/jobs"}
    return JSONResponse({"service": app.title, "version": app.version, **places}, headers={"Vary": "Accept"})


@router.get("/healthz", response_model=Alive, summary="Is the process alive?")
async def alive() -> Response:
    """Answers as long as the process does."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "A dependency is down."}},
    summary="Can the service do its work?",
)
def ready(request: Request) -> Response:
    """Names each dependency; 503 while one is down."""
    found = states(
        {
            "database": partial(check_database, database(request)),
            "broker": partial(check_broker, settings(request).redis_url),
            "storage": partial(check_storage, storage(request)),
        }
    )
    if all(state["status"] == "up" for state in found.values()):
        return JSONResponse({"status": "ready", "dependencies": found})
    return JSONResponse({"status": "unready", "dependencies": found}, 503, headers={"Retry-After": "2"})


@router.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
def metrics(request: Request, identity: Viewer, session: Read) -> Response:
    """The fleet to an admin of the first tenant, with the requests that this process has served; else the tenant's."""
    figures: Figures = request.app.state.figures
    whole = identity.role == "admin" and reach(identity) is None
    content = generate_latest(Fleet(session, None if whole else identity.tenant))
    content += generate_latest(figures.registry) if whole else b""
    return Response(content, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "private, no-store"})
