"""HTTP/1.1 as uvicorn speaks it with httptools, with a bound on what is neither body nor yet a whole head.

What never comes to the application is refused here, as a problem like all others; a head has `HEAD_SECONDS` to come.
The parser takes a header line of any length and joins what came of it anew with each read, so that one of 80 MB would
hold up every other request. Knows no route.
"""

import asyncio
import json
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.ids import new_id

MOST_HEAD_BYTES = 1 << 16
"""Of one request: its first line and its headers, to the byte; also what follows a body in pieces, between and behind
them."""


HEAD_SECONDS = 30.0
"""Between a head's first byte, or the connection, and the head's end: whoever sends a byte a minute holds no
connection open for ever."""

HEAD_TOO_LARGE = ("head_too_large", "The head of the request is too large")
"""Code and title of what is told of a larger one."""
HEAD_STALLED = ("head_stalled", "The head of the request stopped short")
"""The same of one that does not come to its end."""

Refusal = tuple[HTTPStatus, str, str, str, str]
"""Status, code, title, detail and remedy."""


class _HeadTooLarge(Exception):
    """A head has ended, and is larger than it may be."""


def _answer(refusal: Refusal) -> bytes:
    status, code, title, detail, remedy = refusal
    fault, request = {"code": code, "detail": detail, "remedy": remedy}, new_id("req")
    kind = f"/problems/{code.replace('_', '-')}"
    problem = {"type": kind, "title": title, "status": status.value, "instance": request, **fault}
    error = {"message": detail, "type": "invalid_request_error", "param": None, "code": code}
    body = json.dumps({**problem, "errors": [{"pointer": "", **fault}], "error": error}).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
    head += f"x-request-id: {request}\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


_TOO_LARGE: Refusal = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    *HEAD_TOO_LARGE,
    f"the first line and the headers have more than {MOST_HEAD_BYTES} bytes",
    "send fewer or shorter ones",
)
_STALLED: Refusal = (
    HTTPStatus.REQUEST_TIMEOUT,
    *HEAD_STALLED,
    f"the first line and the headers did not come to their end within {HEAD_SECONDS:g} seconds",
    "send them at once",
)
_UNREADABLE: Refusal = (
    HTTPStatus.BAD_REQUEST,
    "unparsable",
    "The request cannot be read",
    "what came is no request of HTTP/1.1",
    "send it with a client of HTTP/1.1, and over https where the server asks for it",
)


class BoundedHead(HttpToolsProtocol):
    """Ends a connection whose head has more than `MOST_HEAD_BYTES`, whether or not it comes to its end."""

    _pending_bytes = 0
    _refused_head = False
    _in_body = False
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Speak HTTP alone: no route is a WebSocket, and the library of those refuses in words of its own."""
        super().connection_made(transport)
        self.ws_protocol_class = None
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; 431 and the end where the head goes on for too long."""
        self._pending_bytes += len(data)
        super().data_received(data)
        if self._pending_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._end(_TOO_LARGE)
        elif self._pending_bytes and not self._in_body and self._waiting is None and not self.transport.is_closing():
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser cannot read, or gave up on."""
        self._end(_TOO_LARGE if self._refused_head else _UNREADABLE)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        """End a connection that has no whole head for too long, yet none on which an answer is under way."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()
        elif self._pending_bytes:
            self._end(_STALLED)
        else:
            self.transport.close()  # never used: browsers open some ahead, and know what to make of this

    def _end(self, refusal: Refusal) -> None:
        """Close the connection, with a word why where no answer is under way."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_answer(refusal))
        self.transport.close()

    def on_headers_complete(self) -> None:
        """The head has ended; it may have come all at once, before anybody could count what was pending."""
        self._pending_bytes = 0
        self._in_body = True
        self._wait_no_more()
        if self._head_bytes() > MOST_HEAD_BYTES:
            self._refused_head = True
            raise _HeadTooLarge  # which ends the parser, and that calls `send_400_response`
        super().on_headers_complete()

    def _head_bytes(self) -> int:
        """What the first line and the headers have, with the ends of the lines and the one that is empty."""
        first = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return first + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers) + len("\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of the body; how much of it may come is for the application to say."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next head begins."""
        self._pending_bytes = 0
        self._in_body = False
        super().on_message_complete()
