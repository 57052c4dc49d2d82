"""The outermost layer, in plain ASGI: gives each request its id, bounds its body, counts it, and lets no exception out.

Makes a HEAD of every GET. Knows no route but the ones that stream their body; those bound its size themselves.
"""

import asyncio
import logging
import re
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.errors import Invalid, ServiceError, Stalled, TooLarge, Unparsable, answer_any, problem
from app.health.figures import Figures
from app.ids import new_id
from engine.errors import Fault

log = logging.getLogger("app.requests")

# A client that is still sending when it is refused sees a broken pipe, not the answer: hear it out, within reason.
DRAIN_FACTOR = 16
ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class ShortWay(Protocol):
    """A route that can answer by itself."""

    path: str
    path_regex: re.Pattern[str]

    async def answer(self, request: Request, content: bytes) -> Response | None:
        """The answer; None: the application has to give it."""


class Edge:
    """Wraps the whole application; bodies but those of paths that fit `streaming` are read here, up to `max_bytes`.

    A body, streamed or not, may pause for `stall_seconds`. The routes of `straight`, by path, and for a GET those of
    `looks` are asked before the application.
    """

    def __init__(
        self,
        app: ASGIApp,
        figures: Figures,
        max_bytes: int,
        stall_seconds: float,
        streaming: re.Pattern[str],
        straight: Mapping[str, ShortWay],
        looks: Sequence[ShortWay] = (),
        log_requests: bool = False,
    ) -> None:
        self.app = app
        self.figures = figures
        self.max_bytes = max_bytes
        self.stall_seconds = stall_seconds
        self.streaming = streaming
        self.straight = straight
        self.looks = looks
        self.log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        method, request_id = scope["method"], new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        # Not reset: each request of a connection is served by a task of its own.
        logs.request_id.set(request_id)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        answered: Send = send_named
        if method == "HEAD":
            # RFC 9110, section 14.2: a Range means something to a GET alone.
            headers = [one for one in scope["headers"] if one[0] != b"range"]
            scope, answered = {**scope, "method": "GET", "headers": headers}, _headers_only(send_named)
        try:
            try:
                _check_address(scope)
                if scope["method"] == "GET":
                    look = next((one for one in self.looks if one.path_regex.match(scope["path"])), None)
                    if await self._answered_straight(look, scope, b"", answered):
                        return
                else:
                    receive = _impatient(receive, self.stall_seconds)
                    if self.streaming.fullmatch(scope["path"]) is None:
                        receive, content = await self._read(receive)
                        if await self._answered_straight(self.straight.get(scope["path"]), scope, content, answered):
                            return
                await self.app(scope, receive, answered)
            except ServiceError as error:
                await problem(Request(scope), error)(scope, receive, answered)
            except Exception as error:
                if status:
                    # The answer has begun; breaking it off is the only honest end.
                    raise
                await answer_any(Request(scope), error)(scope, receive, answered)
        finally:
            seconds = time.perf_counter() - started
            self.figures.count(method, _route(scope), status, seconds)
            if self.log_requests:
                _log(scope, method, status, seconds)

    async def _answered_straight(self, route: ShortWay | None, scope: Scope, content: bytes, send: Send) -> bool:
        if route is None:
            return False
        request = Request(scope)
        scope["route"] = route  # also of what is refused
        response = await route.answer(request, content)
        if response is None:
            return False
        await response(scope, request.receive, send)
        return True

    async def _read(self, receive: Receive) -> tuple[Receive, bytes]:
        """The whole body, also as one message to be received again."""
        body = bytearray()
        size, last = 0, False
        while not last:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _once({"type": "http.disconnect"}, receive), b""
            chunk, last = message.get("body", b""), not message.get("more_body", False)
            size += len(chunk)
            if size <= self.max_bytes:
                body += chunk
            else:
                body.clear()
                if size > DRAIN_FACTOR * self.max_bytes:
                    break
        if size > self.max_bytes:
            raise TooLarge(f"the body has more than {self.max_bytes} bytes", remedy="send less, or upload a data set")
        if b"\0" in body or not _is_utf8(body):
            # Python's parser would guess at other encodings, and so get round the checks of text.
            raise Unparsable("the body is not text in UTF-8", remedy="send one JSON object in UTF-8")
        if b"\\u0000" in body and ESCAPED_NUL.search(body):
            detail = "the body holds the character NUL, which cannot be stored"
            raise Invalid(detail, faults=[Fault("", "nul_character", detail, "leave it out")])
        content = bytes(body)
        return _once({"type": "http.request", "body": content, "more_body": False}, receive), content


def _log(scope: Scope, method: str, status: int, seconds: float) -> None:
    """A line for a request: its route and never its address, whose query is the caller's own."""
    route = _route(scope)
    fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 6)}
    fields |= {"job": scope.get("path_params", {}).get("job_id")} if "{job_id}" in route else {}
    request = scope["state"]["request_id"]
    log.info("%s %s %d %.6f s %s", method, route, status, seconds, request, extra={"fields": fields})


def _headers_only(send: Send) -> Send:
    """Ends the answer after its headers; the server then tells whoever still sends that the client has left."""

    async def send_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_headers


def _impatient(receive: Receive, seconds: float) -> Receive:
    """Gives up on a body whose next part does not come in time; what follows a body may take as long as it likes."""
    ended = False

    async def receive_in_time() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        try:
            async with asyncio.timeout(seconds):
                message = await receive()
        except TimeoutError:
            detail = f"nothing more of the body came for {seconds:g} seconds"
            raise Stalled(detail, headers={"Connection": "close"}) from None
        ended = not message.get("more_body", False)
        return message

    return receive_in_time


def _is_utf8(body: bytearray) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _once(message: Message, receive: Receive) -> Receive:
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return message

    return receive_again


def _check_address(scope: MutableMapping[str, Any]) -> None:
    if "\x00" in scope["path"] or b"%00" in scope["query_string"] or b"\x00" in scope["query_string"]:
        raise Unparsable("the address holds the character NUL", remedy="leave it out")


def _route(scope: MutableMapping[str, Any]) -> str:
    """The route's template, never the path itself: ids must not become labels."""
    return str(getattr(scope.get("route"), "path", "none"))
