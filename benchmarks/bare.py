"""The bare peers: a Starlette application that stores nothing and serves one file as Starlette does by default.

`uvicorn benchmarks.bare:app`; the file is named by the variable BARE_FILE.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route


async def submit(request: Request) -> Response:
    """Read a JSON body and answer 202 with some of it."""
    body = await request.json()
    return JSONResponse({"id": "job_0", "kind": body["kind"]}, 202)


async def look(_: Request) -> Response:
    """Answer 200 with a small object."""
    return JSONResponse({"id": "job_0", "kind": "train", "state": "succeeded"})


async def file(_: Request) -> Response:
    """The file, by Starlette's own way with its own chunk size."""
    return FileResponse(os.environ["BARE_FILE"])


app = Starlette(routes=[Route("/submit", submit, methods=["POST"]), Route("/look", look), Route("/file", file)])
