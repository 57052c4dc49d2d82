"""The short way for a submit that has nothing to it: JSON with no query, which most are.

FastAPI finds out anew with each request what a route's dependencies are, which costs more than to check and store the
job. So the route is declared like any other, and documented by that, and where a request is plain it is read here;
whatever is not plain, or is refused, takes FastAPI's way, which alone knows how to tell what is wrong.
"""

import json

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from app.dependencies import member
from app.idempotency import is_key, once
from app.jobs.schemas import JobCreate

PLAIN = "application/json"


class Straight(APIRoute):
    """A route whose endpoint takes (request, identity, once, body) and whose body is a `JobCreate`."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain request; hand any other one on."""
        request = Request(scope, receive, send)
        key = request.headers.get("idempotency-key")
        plain = scope["method"] == "POST" and not scope["query_string"] and request.headers.get("content-type") == PLAIN
        if not plain or not (key is None or is_key(key)):
            await super().handle(scope, receive, send)
            return
        content = await request.body()
        try:
            body = JobCreate.model_validate(json.loads(content))
        except (ValueError, RecursionError):
            await super().handle(scope, _again(content), send)
            return
        response = await self.endpoint(request, await member(request), once(request, key, content), body)
        await response(scope, receive, send)


def _again(content: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    return receive
