"""Files that must not come in, over HTTP: each refusal is a problem with a remedy, and leaves neither row nor file.

The bombs unpack to many times the caps, and the check runs under a limit on its memory all the while.
"""

import errno
import gzip
import io
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import func, select

from app.database import Base
from app.settings import Settings
from engine.ingest import __main__ as ingest
from engine.ingest.findings import DISK_FULL
from tests.app.datasets.uploads import stored

TEXT, IMAGES = "text_classification", "image_classification"
GOOD = b'{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n'
CAPS = {"max_decompressed_bytes": 20_000_000, "max_cell_bytes": 1_000_000, "max_pixels": 1_000_000}


def picture(size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size).save(stream, "PNG")
    return stream.getvalue()


def huge_png() -> bytes:
    """A few bytes that say they are 60,000 pixels wide and as high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 60_001))
        + chunk(b"IEND", b"")
    )


def zipped(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def parquet_bomb() -> bytes:
    stream = io.BytesIO()
    rows = {"text": ["x" * 900_000] * 200, "label": [0, 1] * 100}
    pq.write_table(pa.table(rows), stream, compression="zstd")
    return stream.getvalue()


TWO = {"cat/1.png": picture(), "dog/1.png": picture((9, 9))}
FILES: dict[str, tuple[str, Callable[[], bytes], int, str]] = {
    "empty": (TEXT, lambda: b"", 422, "no_rows"),
    "binary": (TEXT, lambda: bytes(range(256)) * 40, 422, ""),
    "utf-16": (TEXT, lambda: "text,label\nx,a\ny,b\n".encode("utf-16"), 422, "not_utf8"),
    "latin-1": (TEXT, lambda: "text,label\nx\xe9,a\ny,b\n".encode("latin-1"), 422, "not_utf8"),
    "nul": (TEXT, lambda: b'{"text": "x\\u0000", "label": 1}\n{"text": "y", "label": 2}\n', 422, "nul_character"),
    "no label": (TEXT, lambda: b'{"text": "x"}\n{"text": "y"}\n', 422, ""),
    "one class": (TEXT, lambda: b'{"text": "x", "label": 1}\n{"text": "y", "label": 1}\n', 422, "single_class"),
    "ragged": (TEXT, lambda: b"text,label\nx,a\ny\nz,b,c\n", 422, ""),
    "torn gzip": (TEXT, lambda: gzip.compress(GOOD)[:-9], 422, "broken_compression"),
    "gzip bomb": (
        TEXT,
        lambda: gzip.compress(b'{"text": "x", "label": 1}\n' * 8_000_000, 1),
        413,
        "decompressed_too_large",
    ),
    "parquet bomb": (TEXT, parquet_bomb, 413, "decompressed_too_large"),
    "one class of images": (IMAGES, lambda: zipped({"cat/1.png": picture()}), 422, "single_class"),
    "a way out": (IMAGES, lambda: zipped({**TWO, "../../cat/x.png": picture()}), 422, "unsafe_path"),
    "zip bomb": (IMAGES, lambda: zipped({**TWO, "cat/2.png": bytes(200_000_000)}), 422, "cell_too_large"),
    "many members": (
        IMAGES,
        lambda: zipped({**TWO, **{f"cat/{i}.png": bytes(900_000) for i in range(2, 40)}}),
        413,
        "decompressed_too_large",
    ),
    "png bomb": (IMAGES, lambda: zipped({**TWO, "cat/2.png": huge_png()}), 422, "image_too_large"),
    "torn zip": (IMAGES, lambda: zipped(TWO)[:-30], 422, ""),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_leaves_nothing(
    name: str, service: FastAPI, admin: TestClient, settings: Settings, tmp_path: Path
) -> None:
    service.state.settings = settings.model_copy(update={"ingest_memory_bytes": 600 << 20, **CAPS})
    task, make, status, code = FILES[name]
    before = _rows(service)
    answer = admin.post("/v1/datasets", files={"file": ("../../up.bin", make())}, data={"task": task})

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    faults = answer.json()["errors"]
    assert faults
    assert all(fault["code"] and fault["remedy"] and fault["pointer"] for fault in faults), faults
    assert not code or code in {fault["code"] for fault in faults}, faults
    assert _rows(service) == before
    assert stored(settings) == []
    assert not list(tmp_path.glob("*.bin"))
    good = admin.post("/v1/datasets", files={"file": ("rows.jsonl", GOOD)}, data={"task": TEXT})
    assert good.status_code == 201


def _rows(service: FastAPI) -> dict[str, int]:
    with service.state.database.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


@pytest.mark.parametrize(
    ("returncode", "status", "code"), [(1, 500, "internal"), (4, 503, "disk_full"), (-9, 413, "invalid_data")]
)
def test_a_check_that_ends_badly_tells_no_reason_of_its_own(
    returncode: int,
    status: int,
    code: str,
    service: FastAPI,
    admin: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = b"Traceback (most recent call last):\n  File /srv/secret/place.py\nKeyError: 'x'"
    ended = subprocess.CompletedProcess([], returncode, b"", said)
    monkeypatch.setattr("app.datasets.check.subprocess.run", lambda *_, **__: ended)
    answer = admin.post("/v1/datasets", files={"file": ("rows.jsonl", GOOD)}, data={"task": TEXT})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "Traceback" not in answer.text
    assert "secret" not in answer.text
    # The log has it, beside the request's id.
    assert ("/srv/secret/place.py" in caplog.text) == (returncode == 1)
    assert returncode != 1 or answer.json()["instance"] in caplog.text


@pytest.mark.parametrize("written", ["rows", "report"])
def test_a_full_disk_has_an_exit_code_of_its_own(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source, report = tmp_path / "rows.jsonl", tmp_path / "report.json"
    source.write_bytes(GOOD)
    monkeypatch.setattr(ingest, "die_with", lambda: None)
    if written == "rows":
        monkeypatch.setattr(ingest, "ingest", full)
    else:
        monkeypatch.setattr(ingest, "report", full)
    words = [str(source), "--task", TEXT, "--out", str(tmp_path / "out.parquet"), "--report", str(report)]
    assert ingest.main(words) == DISK_FULL
    assert not report.exists()
