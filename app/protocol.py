"""HTTP/1.1 as uvicorn speaks it with httptools, with a bound on what is neither body nor yet a whole head.

The parser takes a header line of any length and joins what came of it anew with each read, so that one of 80 MB would
hold up every other request. Knows no route.
"""

import json
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 1 << 16
"""Of one request: its first line and its headers; also what follows a body in pieces, between and behind them."""
_FAULT = {
    "code": "head_too_large",
    "detail": f"the first line and the headers have more than {MOST_HEAD_BYTES} bytes",
    "remedy": "send fewer or shorter ones",
}
_PROBLEM = {
    "type": "/problems/head-too-large",
    "title": "The head of the request is too large",
    "status": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value,
    **_FAULT,
    "errors": [{"pointer": "", **_FAULT}],
}
_BODY = json.dumps(_PROBLEM).encode()


class BoundedHead(HttpToolsProtocol):
    """Ends a connection that sends more than `MOST_HEAD_BYTES` without coming to the end of a head or to a body."""

    _pending_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take what came; 431 and the end where the head goes on for too long."""
        self._pending_bytes += len(data)
        super().data_received(data)
        if self._pending_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
                head += f"content-length: {len(_BODY)}\r\nconnection: close\r\n\r\n"
                self.transport.write(head.encode() + _BODY)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._pending_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body; how much of it may come is for the application to say."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next head begins."""
        self._pending_bytes = 0
        super().on_message_complete()
