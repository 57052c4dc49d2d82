"""HTTP/1.1 as uvicorn speaks it with httptools, with a bound on what is neither body nor yet a whole head.

What never comes to the application is refused here, as a problem like all others.
The parser takes a header line of any length and joins what came of it anew with each read, so that one of 80 MB would
hold up every other request. Knows no route.
"""

import asyncio
import json
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 1 << 16
"""Of one request: its first line and its headers, to the byte; also what follows a body in pieces, between and behind
them."""


HEAD_TOO_LARGE = ("head_too_large", "The head of the request is too large")
"""Code and title of what is told of a larger one."""


class _HeadTooLarge(Exception):
    """A head has ended, and is larger than it may be."""


def _refusal(status: HTTPStatus, code: str, title: str, detail: str, remedy: str) -> bytes:
    fault = {"code": code, "detail": detail, "remedy": remedy}
    problem = {"type": f"/problems/{code.replace('_', '-')}", "title": title, "status": status.value, **fault}
    error = {"message": detail, "type": "invalid_request_error", "param": None, "code": code}
    body = json.dumps({**problem, "errors": [{"pointer": "", **fault}], "error": error}).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


_TOO_LARGE = _refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    *HEAD_TOO_LARGE,
    f"the first line and the headers have more than {MOST_HEAD_BYTES} bytes",
    "send fewer or shorter ones",
)
_UNREADABLE = _refusal(
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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Speak HTTP alone: no route is a WebSocket, and the library of those refuses in words of its own."""
        super().connection_made(transport)
        self.ws_protocol_class = None

    def data_received(self, data: bytes) -> None:
        """Take what came; 431 and the end where the head goes on for too long."""
        self._pending_bytes += len(data)
        super().data_received(data)
        if self._pending_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._end(_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser cannot read, or gave up on."""
        self._end(_TOO_LARGE if self._refused_head else _UNREADABLE)

    def _end(self, refusal: bytes) -> None:
        """Close the connection, with a word why where no answer is under way."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(refusal)
        self.transport.close()

    def on_headers_complete(self) -> None:
        """The head has ended; it may have come all at once, before anybody could count what was pending."""
        self._pending_bytes = 0
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
        super().on_message_complete()
