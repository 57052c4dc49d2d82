"""Log lines: which form, whose request and job, one a line; and what no line may hold."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import logs
from app.database import Database
from app.edge import Edge
from app.jobs import repository
from app.settings import Settings
from tests.service import put_job, settings_for, tables, worker_for


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the JSON lines of this process go meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def told(stream: io.StringIO, logger: str) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in every if line["logger"] == logger]


def test_a_line_is_one_json_object(lines: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("here").exception("it %s", "failed\nbadly")
    (line,) = told(lines, "here")
    assert (line["level"], line["message"]) == ("error", "it failed\nbadly")
    assert "ValueError: two\nlines" in line["error"]
    assert line["at"].endswith("Z")
    assert "request" not in line


def test_a_failure_is_logged_under_the_id_of_its_request(
    service: FastAPI, admin: TestClient, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        logging.getLogger("within").warning("about to fail")
        raise RuntimeError("a defect")

    monkeypatch.setattr(repository, "get", fail)
    answers = [TestClient(service, headers=dict(admin.headers)).get("/v1/jobs/job_1") for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert [line["request"] for line in told(lines, "app.errors")] == ids
    assert "a defect" in told(lines, "app.errors")[0]["error"]
    # From a thread of the pool.
    assert [line["request"] for line in told(lines, "within")] == ids


def test_requests_are_logged_where_it_is_asked_for(service: FastAPI, admin: TestClient, lines: io.StringIO) -> None:
    job_id = put_job(service.state.database)
    admin.get(f"/v1/jobs/{job_id}?wait_seconds=0")
    assert told(lines, "app.requests") == []
    (edge,) = (one for one in service.user_middleware if isinstance(one.cls, type) and issubclass(one.cls, Edge))
    edge.kwargs["log_requests"] = True
    service.middleware_stack = service.build_middleware_stack()
    answer = TestClient(service, headers=dict(admin.headers)).get(f"/v1/jobs/{job_id}?wait_seconds=0")
    (line,) = told(lines, "app.requests")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/v1/jobs/{job_id}", 200)
    assert (line["request"], line["job"]) == (answer.headers["x-request-id"], job_id)
    assert line["seconds"] > 0
    assert "wait_seconds" not in json.dumps(line)


def test_what_a_worker_logs_of_a_job_names_it(tmp_path: Any, lines: io.StringIO) -> None:
    settings = settings_for(tmp_path)
    with tables(settings.database) as database:
        job_ids = [put_job(database, steps=2, sleep=0) for _ in range(2)]
        worker_for(settings, database).run_next()
    found = [line["job"] for line in told(lines, "worker.tasks")]
    assert [found[0], found[-1]] == job_ids
    assert logs.job_id.get() is None


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("the secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw is", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("key ftw_abc-DEF_123 was", "abc-DEF_123"),
        ("Authorization: Bearer sk-1234567890", "sk-1234567890"),
        ("cannot reach redis://:hunter2@redis:6379/0", "hunter2"),
        ("postgresql+psycopg://fiftytwo:hunter2@postgres/fiftytwo", "hunter2"),
        ("1 error\n  [type=int, input_value='my letter,\n to you', input_type=str]", "my letter"),
    ],
)
@pytest.mark.parametrize("form", [logs.JsonLines(), logs.Lines(logs.TEXT)])
def test_no_line_has_a_secret(form: logging.Formatter, text: str, secret: str) -> None:
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        record = logging.makeLogRecord({"msg": "%s", "args": (text,), "exc_info": (type(error), error, None)})
    line = form.format(record)
    assert secret not in line
    assert "hidden" in line


def test_a_terminal_obeys_no_line() -> None:
    """What a caller chose may stand in a line, such as the path of a request that failed."""
    record = logging.makeLogRecord({"msg": "%s", "args": ("/v1/jobs/a\x1b]0;mine\x07\r\x85b\u202e\tc\nd",)})
    assert logs.Lines("%(message)s").format(record) == r"/v1/jobs/a\x1b]0;mine\x07\r\x85b\u202e" + "\tc\nd"


def test_an_error_of_the_database_does_not_show_values(tmp_path: Any) -> None:
    with tables(f"sqlite:///{tmp_path}/a.db") as database, pytest.raises(OperationalError) as caught:
        failing(database)
    assert "my letter" not in str(caught.value)


def failing(database: Database) -> None:
    with database.session() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:letter)"), {"letter": "my letter"})


def test_the_form_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYTWO_LOG_FORMAT", "json")
    root = logging.getLogger()
    before = list(root.handlers), root.level
    root.handlers.clear()
    try:
        logs.configure(Settings().log_format)
        assert [type(handler.formatter) for handler in root.handlers] == [logs.JsonLines]
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
