"""Turns: one of each tenant after the other, none lost, never more at a time than there are slots."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.responses import Response

from app.datasets import endpoints
from app.identity import Identity
from app.turns import Turns


def test_each_tenant_has_its_turn() -> None:
    async def ask() -> list[str]:
        turns, order = Turns(1), list[str]()

        async def one(tenant: str) -> None:
            async with turns.of(tenant):
                order.append(tenant)
                await asyncio.sleep(0)

        await asyncio.gather(*(one(tenant) for tenant in "aaaabbc"))
        return order

    assert asyncio.run(ask()) == list("aabcaba")


def test_who_leaves_takes_no_turn_along() -> None:
    async def ask() -> tuple[list[int], int]:
        turns, had, done = Turns(1), list[int](), asyncio.Event()

        async def one(number: int) -> None:
            async with turns.of("a"):
                had.append(number)
                await done.wait()

        first, *others = [asyncio.ensure_future(one(number)) for number in range(4)]
        await asyncio.sleep(0)
        others[0].cancel()
        first.cancel()
        await asyncio.sleep(0)
        others[1].cancel()  # whose turn has just come
        await asyncio.sleep(0)
        done.set()
        async with asyncio.timeout(20):
            await others[2]
        return had, turns._free

    assert asyncio.run(ask()) == ([0, 3], 1)


def test_many_uploads_of_one_tenant_keep_no_other_waiting_for_all_of_them(
    service: FastAPI, admin: TestClient, client_for: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    service.state.checks = Turns(1)
    order, go, other = list[str](), threading.Event(), client_for("other").headers["authorization"]

    def store(_: Any, identity: Identity, *__: Any) -> Response:
        order.append(identity.tenant)
        assert go.wait(20)
        return Response()

    def waiting() -> int:
        return len(order) + sum(map(len, service.state.checks._waiting.values()))

    monkeypatch.setattr(endpoints, "store", store)
    with ThreadPoolExecutor(4) as pool:
        for number, key in enumerate([admin.headers["authorization"]] * 3 + [other], 1):
            pool.submit(admin.post, "/v1/datasets", files={"file": b"{}"}, headers={"Authorization": key})
            while waiting() < number:
                time.sleep(0.005)
        go.set()
    assert order == ["default", "default", "other", "default"]
