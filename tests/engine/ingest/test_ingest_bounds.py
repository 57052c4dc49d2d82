"""What a small file can make the check of an upload do: never much."""

import gzip
import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from engine.ingest.__main__ import ingest, report
from engine.ingest.findings import Choices, Limits


def problem(folder: Path, content: bytes, filename: str = "rows", **limits: int) -> Mapping[str, Any]:
    """The one thing that is wrong with a file of texts."""
    source = folder / "upload"
    source.write_bytes(content)
    out = folder / "rows.parquet"
    (found,) = report(*ingest(source, filename, "text_classification", out, Choices({}), Limits(**limits)))["problems"]
    assert not out.exists()
    return dict(found)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_decompression_bomb_stops_at_the_cap(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"0" * 300_000_000)
    assert len(bomb) < 400_000
    assert problem(tmp_path, bomb, max_bytes=10_000_000)["code"] == "decompressed_too_large"


def test_a_parquet_file_may_not_decode_to_more_than_the_cap(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * 1_000_000] * 300, "label": [0, 1] * 150}), stream, compression="zstd")
    assert len(stream.getvalue()) < 2_000_000
    assert problem(tmp_path, stream.getvalue(), max_bytes=100_000_000)["code"] == "decompressed_too_large"


def test_of_very_many_columns_that_come_twice_the_first_few_are_told(tmp_path: Path) -> None:
    header = ",".join(f"c{number % 5_000:04}" for number in range(10_000))
    found = problem(tmp_path, f"{header}\na,b\n".encode(), "a.csv")
    assert found["detail"] == "the header names 'c0000', 'c0001', 'c0002', 'c0003', 'c0004' more than once"


def test_the_check_of_a_file_never_loads_torch() -> None:
    """It would not fit into the memory that a check may have, and every upload would wait for it."""
    code = "import sys, engine.ingest.__main__; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
