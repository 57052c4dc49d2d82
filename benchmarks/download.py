"""What a download costs the server, whole and by Range, in processor seconds a GB; Starlette's default beside it."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.artifacts.models import Artifact
from app.database import Database
from app.ids import new_id
from app.storage import storage_for
from benchmarks.benchmark import Benchmark, Setting
from benchmarks.load import content_length
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.servers import HOST, KEY, Server, api, bare

_BYTES = 200_000_000
_QUICK_BYTES = 40_000_000
_RANGES = 4
_BUFFER = 1 << 20
_FEWEST_SECONDS = 0.5  # the kernel counts processor time in ticks of 10 ms


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """One artifact of 200 MB, fetched over loopback often enough for the kernel's clock."""
    folder = setting.scratch("download")
    size = _QUICK_BYTES if setting.quick else _BYTES
    file = folder / "artifact.bin"
    file.write_bytes(os.urandom(size))
    with api(folder / "data") as ours, bare(folder, file) as plain:
        path = f"/v1/artifacts/{_stored(ours, file)}/content"
        step = size // _RANGES
        parts = [f"Range: bytes={start}-{start + step - 1}\r\n" for start in range(0, size, step)]

        def pair(number: int) -> dict[str, float]:
            whole, ranges = in_turn(
                number, lambda: _cost(ours, size, path, [""]), lambda: _cost(ours, size, path, parts)
            )
            return {"whole": whole, "by Range": ranges, "default": _cost(plain, size, "/file", [""])}

        pair(0)
        yield pair


def _stored(server: Server, file: Path) -> str:
    """Store the file as a job leaves it; the artifact's id."""
    stored = storage_for(server.settings).save(file)
    database = Database(server.settings.database)
    row = Artifact(
        id=new_id("art"),
        tenant="default",
        job_id=new_id("job"),
        attempt=1,
        kind="model",
        filename="artifact.bin",
        media_type="application/octet-stream",
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        storage_key=stored.key,
        created_at=datetime.now(UTC),
    )
    with database.session() as session:
        session.add(row)
    database.close()
    return row.id


def _cost(server: Server, size: int, path: str, fields: Sequence[str]) -> float:
    """Processor seconds of the server a GB: the file is fetched, one request for each of `fields`, again and again."""
    started, fetched = server.processor_seconds(), 0
    with socket.create_connection((HOST, server.port)) as connection:
        while server.processor_seconds() - started < _FEWEST_SECONDS or not fetched:
            received = sum(_fetch(connection, server.port, path, field) for field in fields)
            if received != size:
                raise RuntimeError(f"{received} bytes came instead of {size}")
            fetched += received
    return (server.processor_seconds() - started) / (fetched / 1e9)


def _fetch(connection: socket.socket, port: int, path: str, field: str) -> int:
    """One GET on a kept connection; the bytes of its body, which are dropped as they come."""
    head = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAuthorization: Bearer {KEY}\r\n{field}\r\n"
    connection.sendall(head.encode())
    received = _until_body(connection.recv)
    head_bytes, _, body = received.partition(b"\r\n\r\n")
    if not head_bytes.startswith((b"HTTP/1.1 200", b"HTTP/1.1 206")):
        raise RuntimeError(head_bytes.decode(errors="replace"))
    length = content_length(head_bytes)
    left, buffer = length - len(body), bytearray(_BUFFER)
    while left > 0:
        got = connection.recv_into(buffer)
        if not got:
            raise RuntimeError("the connection broke off")
        left -= got
    return length


def _until_body(receive: Callable[[int], bytes]) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        more = receive(4096)
        if not more:
            raise RuntimeError("the connection broke off")
        received += more
    return received


BENCHMARKS = (
    Benchmark(
        "download",
        "download",
        f"{_BYTES // 1_000_000} MB whole and by {_RANGES} ranges, the server's processor seconds a GB; beside it "
        "Starlette's default FileResponse",
        (
            Line("whole", 0.45, 0.30, more_is_better=False, unit="s/GB"),
            Line("by Range", 0.45, 0.30, more_is_better=False, unit="s/GB"),
            Line("default", unit="s/GB"),
        ),
        opened,
        120,
    ),
)
