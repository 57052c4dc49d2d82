"""A receiver of webhooks on this machine, and a service that may call it."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.settings import Settings
from app.webhooks.sending import deliver_due
from tests.service import STAND_IN, settings_for


@dataclass
class Receiver:
    """What came, and what is answered: the statuses in turn, then 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that notes every POST."""
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = receiver.statuses.pop(0) if receiver.statuses else 204
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{receiver.url}/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Private addresses are allowed: the receiver has one."""
    ways = {"requests_per_second": 10_000, "engine_command": STAND_IN, "webhook_private_addresses": True}
    return settings_for(tmp_path / "data", **ways)


def deliver(service: FastAPI, *, private: bool = True) -> int:
    """One round of a worker's."""
    return deliver_due(service.state.database, private=private)
