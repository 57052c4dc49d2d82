"""Values of a Parquet file that Arrow holds and Python does not."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.ingest.__main__ import ingest, report
from engine.ingest.findings import Choices, Limits

TWO = pa.array(["a", "b"])
BEYOND_PYTHON = {
    "date32": pa.array([2**31 - 1, 1], pa.int32()).cast(pa.date32()),
    "date64": pa.array([2**62, 1], pa.int64()).view(pa.date64()),
    "duration": pa.array([2**63 - 1, 1], pa.int64()).view(pa.duration("s")),
    "timestamp": pa.array([2**62, 1], pa.int64()).view(pa.timestamp("us")),
    "time zone": pa.array([1, 2], pa.int64()).view(pa.timestamp("us", tz="No/Where")),
    "fields of one name": pa.StructArray.from_arrays([TWO, TWO], names=["x", "x"]),
}


@pytest.mark.parametrize("kind", BEYOND_PYTHON)
@pytest.mark.parametrize("column", ["text", "label"])
def test_a_parquet_column_that_python_cannot_hold(tmp_path: Path, kind: str, column: str) -> None:
    source = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TWO, "label": TWO, column: BEYOND_PYTHON[kind]}), source)
    found = ingest(source, "a.parquet", "text_classification", tmp_path / "rows.parquet", Choices({}), Limits())
    (problem,) = report(*found)["problems"]
    assert (problem["code"], problem["line"]) == ("broken_parquet", 1)
    assert problem["remedy"]
