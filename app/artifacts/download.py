"""Sends a span of a stored file, cheaply: big chunks, read ahead of the socket by the thread pool. Knows no artifact.

Most of a download's cost is a trip to the thread pool for each chunk and a copy for each buffer: a store on this
machine gives few large chunks, which are parts of the file itself.
"""

from collections.abc import Iterator, Mapping

import anyio
import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class SpanResponse(Response):
    """An answer whose body comes from an iterator of chunks."""

    def __init__(
        self, chunks: Iterator[bytes | memoryview], length: int, status: int, headers: Mapping[str, str], kind: str
    ) -> None:
        super().__init__(None, status, headers={**headers, "Content-Length": str(length)}, media_type=kind)
        self.chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers, then chunk by chunk; ends early when the client leaves."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch)
            # The thread starts only after the watch has looked once: a HEAD, over with its headers, reads nothing.
            while (chunk := await anyio.to_thread.run_sync(next, self.chunks, None)) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            group.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
