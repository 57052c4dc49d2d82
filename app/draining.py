"""Hears a body out that is refused already. Knows no route."""

from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import ClientDisconnect

from app.errors import Stalled

DRAIN_BYTES = 64 << 20


async def drain(stream: AsyncIterator[bytes]) -> None:
    """Read on, within reason: a client that is still sending when it is refused sees a broken pipe, not the answer."""
    heard = 0
    with suppress(Stalled, ClientDisconnect):
        async for chunk in stream:
            heard += len(chunk)
            if heard > DRAIN_BYTES:
                break
