"""Jobs are counted without reading them: a job is wide, and Prometheus asks every few seconds."""

from pathlib import Path
from typing import Any

from sqlalchemy import event

from app.health import repository
from tests.service import tables


def test_jobs_are_counted_out_of_an_index_alone(tmp_path: Path) -> None:
    asked: list[tuple[str, Any]] = []

    def hear(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    with tables(f"sqlite:///{tmp_path}/jobs.db") as database, database.reading() as session:
        event.listen(database.readers, "before_cursor_execute", hear)
        repository.jobs(session, None)
        statement, parameters = next(one for one in asked if "GROUP BY" in one[0])
        (plan,) = [
            str(row.detail)
            for row in session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            if "jobs" in row.detail
        ]
    assert "COVERING INDEX" in plan
