"""Wires the service together: settings, database, storage, keys, routes and errors. Holds no rule of its own."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

import app.artifacts.endpoints
import app.auth.endpoints
import app.dashboard.pages
import app.dashboard.routing
import app.datasets.endpoints
import app.experiments.ballot_endpoints
import app.experiments.endpoints
import app.federation.endpoints
import app.health.endpoints
import app.instructions.endpoints
import app.jobs.endpoints
import app.jobs.following
import app.models.endpoints
import app.openai.files.endpoints
import app.openai.fine_tuning.endpoints
import app.openai.uploads.endpoints
import app.privacy.endpoints
import app.receipts.endpoints
import app.validation
import app.webhooks.endpoints
from app import incoming
from app.auth.keyring import KeyRing
from app.auth.rate import RateLimit
from app.database import Database
from app.dependencies import NoQueue, Queue
from app.edge import Edge
from app.errors import install
from app.health.figures import Figures
from app.jobs.intake import Intake
from app.jobs.looks import Look, Looks
from app.jobs.repository import open_jobs_reading
from app.jobs.straight import Straight
from app.jobs.watching import Watch
from app.openai.expiry import expiring
from app.openapi import document
from app.privacy.lineage import Content
from app.queue import Bell
from app.settings import Settings
from app.storage import storage_for
from app.turns import Turns
from client import signature

VERSION = "0.1.0"
# In the order in which a request is held against them, so the busiest first.
ROUTERS = (
    app.jobs.endpoints.router,
    app.jobs.following.router,
    app.artifacts.endpoints.router,
    app.datasets.endpoints.router,
    app.instructions.endpoints.router,
    app.models.endpoints.router,
    app.openai.fine_tuning.endpoints.router,
    app.openai.files.endpoints.router,
    app.openai.uploads.endpoints.router,
    app.receipts.endpoints.router,
    app.privacy.endpoints.router,
    app.federation.endpoints.router,
    app.experiments.endpoints.router,
    app.experiments.ballot_endpoints.router,
    app.webhooks.endpoints.router,
    app.auth.endpoints.router,
    app.health.endpoints.router,
    *app.dashboard.pages.ROUTERS,
)
# Their bodies are streamed to disk, each under a cap of its own.
STREAMING = re.compile(r"(/v1)?/datasets|/v1/rounds/[^/]+/updates/.+|/v1/files|/v1/uploads/[^/]+/parts")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service for these settings, or for those of the environment; its tables must exist (`fiftytwo migrate`)."""
    settings = settings or Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings.database)
    queue: Queue = Bell(settings.redis_url) if settings.redis_url is not None else NoQueue()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        incoming.sweep(settings.data_dir)
        async with expiring(database, state.storage, open_jobs_reading):
            yield
        queue.close()
        database.close()

    # A path with a slash too many is 404: a redirect would name whatever host the request claims, before any key.
    # `/docs` is a page of the panel's, since FastAPI's own loads scripts from elsewhere.
    service = FastAPI(
        title="fiftytwo", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    state = service.state
    state.settings, state.database = settings, database
    state.storage = storage_for(settings)
    state.queue = queue
    state.intake = Intake(database, lambda: state.queue.ring(), settings.max_open_jobs)
    state.watch = Watch(database)
    state.looks = Looks(database)
    state.keys = KeyRing(database)
    state.rate = RateLimit(settings.requests_per_second)
    state.figures = Figures()
    state.receipt_key = signature.public_key(signature.ensure_key(settings.receipt_key))
    state.checks = Turns(os.cpu_count() or 1)
    state.dataset_readers = open_jobs_reading
    state.content = Content.read
    for router in ROUTERS:
        # Not `include_router`: what it makes of a router holds each request twice against every route.
        service.router.routes.extend(router.routes)
    install(service)
    app.validation.install(service)
    app.dashboard.routing.install(service)
    _edge(service, settings)
    # FastAPI's documented way to a document of one's own.
    setattr(service, "openapi", partial(document, service))  # noqa: B010
    return service


def _edge(service: FastAPI, settings: Settings) -> None:
    service.add_middleware(
        Edge,
        figures=service.state.figures,
        max_bytes=settings.max_json_bytes,
        stall_seconds=settings.body_stall_seconds,
        streaming=STREAMING,
        log_requests=settings.log_requests,
        straight={route.path: route for route in service.routes if isinstance(route, Straight)},
        looks=[route for route in service.routes if isinstance(route, Look)],
    )
