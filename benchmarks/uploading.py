"""What an upload costs the API: memory above idle while 500 MB stream in, and processor time over sha256's own."""

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.pairs import Line, Pair
from benchmarks.servers import HOST, KEY, Server, api
from benchmarks.texts import made_text

_BYTES, _QUICK_BYTES = 500_000_000, 50_000_000
_TEXTS, _WORDS = 100, 300
_PART = 1 << 20
_LOOK_SECONDS = 0.01
_BOUNDARY = "boundary-of-the-benchmark"
_CREATED = 201


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """A data set of long texts, uploaded whole, checked by a child process and stored."""
    folder = setting.scratch("upload")
    file = folder / "texts.jsonl"
    _write(file, _QUICK_BYTES if setting.quick else _BYTES)
    with api(folder / "data") as ours:

        def pair(_: int) -> dict[str, float]:
            size = file.stat().st_size
            idle, spent = ours.process.memory_info().rss, ours.processor_seconds()
            with _peak(ours.process) as peak:
                dataset = _upload(ours, file)
            cost = (ours.processor_seconds() - spent) / (size / 1e9)
            with ours.client() as client:
                client.delete(f"/v1/datasets/{dataset}")
            own = _sha256_seconds(file) / (size / 1e9)
            return {"memory": (max(peak) - idle) / 1e6, "over sha256": cost / own, "cost": cost, "sha256": own}

        pair(0)
        yield pair


def _write(file: Path, size: int) -> None:
    """Rows of ordinary words, each text another piece of one long text: they compress as texts do."""
    drawn = np.random.default_rng(0)
    whole = " ".join(made_text(drawn, _WORDS, 0.25) for _ in range(_TEXTS))
    with file.open("wb") as out:
        number = 0
        while out.tell() < size:
            start = int(drawn.integers(len(whole)))
            text = f"{number} {whole[start:]} {whole[:start]}"
            out.write(json.dumps({"text": text, "label": "ab"[number % 2]}).encode() + b"\n")
            number += 1


@contextmanager
def _peak(process: psutil.Process) -> Iterator[list[int]]:
    """The resident bytes of the process, looked at again and again; its children are not counted."""
    seen, ended = [process.memory_info().rss], threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_SECONDS):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _upload(server: Server, file: Path) -> str:
    """Send the file as a form, part by part; the id of the data set."""
    fields = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="task"\r\n\r\ntext_classification\r\n'
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="texts.jsonl"\r\n\r\n'
    ).encode()
    end = f"\r\n--{_BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(HOST, server.port, timeout=900)
    connection.putrequest("POST", "/v1/datasets")
    connection.putheader("Authorization", f"Bearer {KEY}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
    connection.putheader("Content-Length", str(len(fields) + file.stat().st_size + len(end)))
    connection.endheaders(fields)
    with file.open("rb") as rows:
        while part := rows.read(_PART):
            connection.send(part)
    connection.send(end)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != _CREATED:
        raise RuntimeError(f"{answer.status}: {body[:500]!r}")
    return str(json.loads(body)["id"])


def _sha256_seconds(file: Path) -> float:
    """Processor seconds of hashing these very bytes, reading them not counted."""
    digest, seconds = hashlib.sha256(), 0.0
    with file.open("rb") as rows:
        while part := rows.read(_PART):
            began = time.process_time()
            digest.update(part)
            seconds += time.process_time() - began
    return seconds


BENCHMARKS = (
    Benchmark(
        "upload",
        "upload",
        f"a data set of {_BYTES // 1_000_000} MB streamed to POST /v1/datasets: memory of the API's process above "
        "idle, and its processor seconds a GB over those of sha256 alone; the check, a process of its own, apart",
        (
            Line("memory", 96, 64, more_is_better=False, unit="MB"),
            Line("over sha256", 5, 3, more_is_better=False, unit="x"),
            Line("cost", unit="s/GB"),
            Line("sha256", unit="s/GB"),
        ),
        opened,
        120,
    ),
)
