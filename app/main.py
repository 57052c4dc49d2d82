"""Wires the service together: settings, database, storage, keys, routes and errors. Holds no rule of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import app.auth.endpoints
from app.auth.keyring import KeyRing
from app.auth.rate import RateLimit
from app.database import Database
from app.edge import Edge
from app.errors import install
from app.health.figures import Figures
from app.settings import Settings
from app.storage import storage_for


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service for these settings, or for those of the environment; its tables must exist (`fiftytwo migrate`)."""
    settings = settings or Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings.database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        database.close()

    service = FastAPI(title="fiftytwo", lifespan=lifespan)
    service.state.settings = settings
    service.state.database = database
    service.state.storage = storage_for(settings)
    service.state.keys = KeyRing(database)
    service.state.rate = RateLimit(settings.requests_per_second)
    service.state.figures = Figures()
    service.include_router(app.auth.endpoints.router)
    install(service)
    service.add_middleware(
        Edge, figures=service.state.figures, max_bytes=settings.max_json_bytes, streaming={"/v1/datasets"}
    )
    return service
