"""A head without an end is no way to hold up the others."""

import asyncio
import json
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.protocol import MOST_HEAD_BYTES, BoundedHead

PIECE = b"a" * 16_384


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.ended = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written += data

    def close(self) -> None:
        """Read no more."""
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self.closed


async def answer(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def told(*chunks: bytes) -> tuple[Wire, int]:
    """What comes back for these chunks, and how many of them were heard."""

    async def run() -> tuple[Wire, int]:
        config = Config(answer, http="app.protocol:BoundedHead", log_config=None)
        config.load()
        assert config.http_protocol_class is BoundedHead
        protocol = BoundedHead(config, ServerState(), {}, asyncio.get_running_loop())
        wire, heard = Wire(), 0
        protocol.connection_made(wire)
        for chunk in chunks:
            if wire.closed:
                break
            protocol.data_received(chunk)
            heard += 1
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        wire.ended = wire.closed
        protocol.connection_lost(None)
        return wire, heard

    return asyncio.run(run())


@pytest.mark.parametrize("start", [b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: ", b"GET /?", b"GET / HTTP/1.1\r\n"])
def test_a_head_that_goes_on_and_on_ends_the_connection(start: bytes) -> None:
    piece = b"x: y\r\n" * 3_000 if start.endswith(b"\r\n") else PIECE
    wire, heard = told(start, *[piece] * 100)
    assert wire.ended
    assert heard <= 2 + MOST_HEAD_BYTES // len(piece)
    assert wire.written.startswith(b"HTTP/1.1 431 ")
    told_of = json.loads(wire.written.partition(b"\r\n\r\n")[2])
    assert (told_of["status"], told_of["errors"][0]["code"]) == (431, "head_too_large")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_of_a_head_holds_to_the_byte(more: int, whole: bool) -> None:
    start, end = b"GET /jobs HTTP/1.1\r\nhost: a\r\nx: ", b"\r\n\r\n"
    head = start + b"a" * (MOST_HEAD_BYTES + more - len(start) - len(end)) + end
    wire, _ = told(head) if whole else told(head[:60_000], head[60_000:])
    assert wire.ended == bool(more)
    assert wire.written.startswith(b"HTTP/1.1 431 " if more else b"HTTP/1.1 200 ")
    assert wire.written.count(b"HTTP/1.1 ") == 1


def test_a_large_head_behind_another_request_is_counted_by_itself() -> None:
    first, large = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"GET /?" + b"a" * MOST_HEAD_BYTES + b" HTTP/1.1\r\n\r\n"
    wire, _ = told(first, large[:30_000], large[30_000:])
    assert wire.ended
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    assert wire.written.count(b"HTTP/1.1 431 ") == 1


def test_a_tail_behind_a_body_in_pieces_is_bounded_too() -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    whole, _ = told(head, b"3\r\nabc\r\n0\r\nx: ", *[PIECE] * 2, b"\r\n\r\n")
    assert whole.written.startswith(b"HTTP/1.1 200 ")
    wire, heard = told(head, b"3\r\nabc\r\n0\r\nx: ", *[PIECE] * 100)
    assert wire.ended
    assert heard <= 3 + MOST_HEAD_BYTES // len(PIECE)


def test_a_large_body_behind_a_head_is_nobodys_fault() -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1638400\r\n\r\n"
    wire, _ = told(head + PIECE * 10, *[PIECE] * 90)
    assert not wire.ended
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    assert b"1638400" in wire.written


def test_many_requests_on_one_connection_are_each_their_own() -> None:
    request = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 30_000 + b"\r\n\r\n"
    wire, _ = told(*[request] * 5)
    assert not wire.ended
    assert wire.written.count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: \x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_is_told_so_as_a_problem(sent: bytes) -> None:
    wire, _ = told(sent)
    assert wire.ended
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/problem+json" in head
    assert f"content-length: {len(body)}".encode() in head
    problem = json.loads(body)
    assert (problem["status"], problem["type"]) == (400, "/problems/unparsable")
    assert problem["errors"][0]["code"] == "unparsable"
    assert f"x-request-id: {problem['instance']}\r\n".encode() in head
    assert problem["remedy"]
    assert problem["error"]["message"] == problem["detail"]


def test_who_asks_for_a_websocket_is_answered_as_anybody() -> None:
    head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    wire, _ = told(head + b"sec-websocket-version: 13\r\nsec-websocket-key: short\r\n\r\n")
    assert wire.written.startswith(b"HTTP/1.1 200 ")


def test_a_request_after_one_that_was_answered_is_refused_by_itself() -> None:
    wire, _ = told(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\x00\x01")
    assert wire.ended
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    assert wire.written.count(b"HTTP/1.1 400 ") == 1


@pytest.mark.parametrize("before", [(), (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",)])
def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, before: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr("app.protocol.HEAD_SECONDS", 0.02)
    wire, heard = told(*before, b"GET / HTTP/1.1\r\n", *[b"x"] * 200)
    assert wire.ended
    assert heard < 100
    head, _, body = wire.written.rpartition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1 200 ") == len(before)
    assert head.count(b"HTTP/1.1 408 ") == 1
    assert json.loads(body)["code"] == "head_stalled"


def test_a_connection_that_nothing_comes_over_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.protocol.HEAD_SECONDS", 0.02)
    wire, _ = told()
    assert (wire.ended, wire.written) == (True, b"")


def test_a_body_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.protocol.HEAD_SECONDS", 0.02)
    start = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    wire, _ = told(start, *[b"1", b"\r\n", b"x", b"\r\n"] * 3, b"0\r\n\r\n")
    assert not wire.ended
    assert wire.written.startswith(b"HTTP/1.1 200 ")
