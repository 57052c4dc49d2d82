"""A load generator of a few lines: keep-alive connections that send one fixed request as soon as the last is answered.

It must cost far less than the server that it measures, so it reads no more of HTTP than where an answer ends.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass, field

_CLIENTS = 16


@dataclass
class Load:
    """What came of a round: latencies in seconds, statuses other than the wanted one, and how long it took."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    @property
    def p50(self) -> float:
        """The median of the latencies in seconds."""
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        """The 99th percentile of the latencies in seconds."""
        return statistics.quantiles(self.latencies, n=100)[98]


def request_bytes(host: str, port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A POST of a JSON body as it goes over the wire."""
    fields = {"Host": f"{host}:{port}", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def get_bytes(host: str, port: int, path: str, headers: dict[str, str]) -> bytes:
    """A GET as it goes over the wire."""
    fields = {"Host": f"{host}:{port}", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


def fire(host: str, port: int, request: bytes, status: int, seconds: float, clients: int = _CLIENTS) -> Load:
    """Send the request over and over for some seconds from several connections at once."""
    return asyncio.run(_fire(host, port, request, status, seconds, clients))


async def _fire(host: str, port: int, request: bytes, status: int, seconds: float, clients: int) -> Load:
    load, loop = Load(), asyncio.get_running_loop()
    wanted = f"HTTP/1.1 {status} ".encode()
    started = time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Connection(request, wanted, started + seconds, load), host, port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(connection.done for _, connection in made))
    load.seconds = time.perf_counter() - started
    return load


class _Connection(asyncio.Protocol):
    """One client: sends, waits for the whole answer, sends again until the deadline."""

    def __init__(self, request: bytes, wanted: bytes, deadline: float, load: Load) -> None:
        self.request, self.wanted, self.deadline, self.load = request, wanted, deadline, load
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received, self._whole, self._missing = b"", False, 0
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        # Of a long body only how much is missing is kept: to join its parts would cost more than to send them.
        self._missing -= len(data)
        if not self._whole:
            self._received += data
            end = self._received.find(b"\r\n\r\n")
            self._whole = end >= 0
            self._missing = end + 4 + content_length(self._received[:end]) - len(self._received)
        if not self._whole or self._missing > 0:
            return
        now = time.perf_counter()
        self.load.latencies.append(now - self._sent)
        if not self._received.startswith(self.wanted):
            self.load.errors += 1
        self._received, self._whole = b"", False
        if now < self.deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None or self._received:
            self.load.errors += 1
        if not self.done.done():
            self.done.set_result(None)


def content_length(head: bytes) -> int:
    """The length of the body that a head announces."""
    lowered = head.lower()
    at = lowered.find(b"content-length:")
    if at < 0:
        return 0
    end = lowered.find(b"\r\n", at)
    return int(lowered[at + 15 : end if end >= 0 else None])
