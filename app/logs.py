"""Log lines, as text or as one JSON object each, with the request and the job that they are about, and no secret.

What is being done is known by context: the edge names the request, the worker the job, and every line written below, in
a thread of the pool too, carries it. Imported by the worker; knows neither settings nor domains.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from app.moments import rfc3339

Form = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# What a terminal would obey: some lines hold what a caller chose, such as the path of a request that failed.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
job_id: ContextVar[str | None] = ContextVar("job_id", default=None)

# What must never be in a log, should a library's words hold it: keys, secrets of webhooks, passwords within URLs, and
# the values that pydantic shows of what it refuses.
_SECRETS = (
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), "whsec_[hidden]"),
    (re.compile(r"\bftw_[A-Za-z0-9_-]+"), "ftw_[hidden]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 [hidden]"),
    (re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@"), r"\1:[hidden]@"),
    (re.compile(r"input_value=.*?, input_type=", re.DOTALL), "input_value=[hidden], input_type="),
)


def configure(form: Form) -> None:
    """Let every log line of this process go to standard error in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else Lines(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


@contextmanager
def about_job(of: str) -> Iterator[None]:
    """Let the lines that are written within be about this job."""
    token = job_id.set(of)
    try:
        yield
    finally:
        job_id.reset(token)


def hidden(text: str) -> str:
    """The text without what must not be in a log."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class Lines(logging.Formatter):
    """Text for people; a traceback has lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return _OBEYED.sub(lambda sign: sign[0].encode("unicode_escape").decode(), hidden(super().format(record)))


class JsonLines(logging.Formatter):
    """One JSON object a line: `at`, `level`, `logger`, `message`, and where they are known `request`, `job`, `error`.

    What a line is given as `extra={"fields": {...}}` stands beside these.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, object] = {
            "at": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": hidden(record.getMessage()),
            "request": request_id.get(),
            "job": job_id.get(),
            "error": hidden(self.formatException(record.exc_info)) if record.exc_info else None,
            **getattr(record, "fields", {}),
        }
        kept = {name: value for name, value in told.items() if value is not None}
        return json.dumps(kept, ensure_ascii=False, default=str, separators=(",", ":"))
