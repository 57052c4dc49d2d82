"""A body that is refused is heard out within reason, and whoever leaves meanwhile is no error."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import ClientDisconnect

from app.draining import DRAIN_BYTES, drain
from app.errors import Stalled


@pytest.mark.parametrize("error", [ClientDisconnect(), Stalled("nothing comes")])
def test_whoever_leaves_or_stalls_is_let_go(error: Exception) -> None:
    raised: list[Exception] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raised.append(error)
        raise error

    asyncio.run(drain(body()))
    assert raised == [error]


def test_nobody_is_heard_out_for_ever() -> None:
    heard: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        while True:
            heard.append(1 << 20)
            yield bytes(1 << 20)

    asyncio.run(drain(body()))
    assert DRAIN_BYTES <= sum(heard) <= DRAIN_BYTES + (2 << 20)
