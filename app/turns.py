"""Turns at what takes long: so many at a time, and whoever waits is served one of each tenant after the other.

So one tenant's many uploads keep nobody else's waiting for longer than one of them takes. Used by one event loop; knows
nothing of what is done.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """`slots` of them are free at first."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """The lines of the tenants that wait, the one whose turn is next first."""

    @asynccontextmanager
    async def of(self, tenant: str) -> AsyncIterator[None]:
        """A turn of this tenant's, once there is one."""
        if self._free:
            self._free -= 1
        else:
            await self._turn(tenant)
        try:
            yield
        finally:
            self._pass_on()

    async def _turn(self, tenant: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it came just as its asker left
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            tenant, line = self._waiting.popitem(last=False)
            following = line.popleft()
            if line:
                self._waiting[tenant] = line
            if not following.cancelled():
                following.set_result(None)
                return
        self._free += 1
