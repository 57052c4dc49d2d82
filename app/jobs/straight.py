"""The short way for a submit that is plain: JSON, and no query, which most are.

FastAPI finds out anew with each request what a route's dependencies are, in layers that none of ours needs; that costs
more than to check and store a job. So the route is declared and documented like any other, and `app.edge` asks here
first. What is not plain, or is no job, goes FastAPI's way, which alone tells what is wrong with it.
"""

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from app.dependencies import member
from app.idempotency import is_key, once
from app.jobs.requests import request_class

PLAIN = "application/json"


class Straight(APIRoute):
    """A POST route whose endpoint takes (request, identity, once, body) and whose body is a job of any kind."""

    async def answer(self, request: Request, content: bytes) -> Response | None:
        """The answer to a plain request; None: it has to go the long way."""
        key = request.headers.get("idempotency-key")
        plain = request.method == "POST" and not request.scope["query_string"]
        if not plain or request.headers.get("content-type") != PLAIN or not (key is None or is_key(key)):
            return None
        try:
            fields = orjson.loads(content)
            body = request_class(fields).model_validate(fields)
        except (ValueError, RecursionError):
            return None
        response: Response = await self.endpoint(request, await member(request), once(request, key, content), body)
        return response
