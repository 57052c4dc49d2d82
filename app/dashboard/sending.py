"""What the forms share that make something: a second click makes no second thing, and what is wrong is told as faults.

Knows no page.
"""

import hashlib
import re
import secrets

import orjson
from starlette.requests import Request

from app.dashboard.wording import on_pages
from app.errors import Invalid, ServiceError
from app.idempotency import Once, once
from engine.errors import EngineError, Fault

_TOKEN = re.compile(r"[0-9a-f]{16}")


def new_token() -> str:
    """What a form carries, hidden, so that it is known again when it is sent twice."""
    return secrets.token_hex(8)


def claim(request: Request, token: str, wanted: object) -> Once:
    """The claim on what a form asks for; a form that is filled in anew before it is sent again asks for a second thing.

    Args:
        wanted: what it asks for, as JSON has it.
    """
    content = orjson.dumps(wanted)
    known = _TOKEN.fullmatch(token) is not None
    return once(request, f"panel-{token}-{hashlib.sha256(content).hexdigest()[:16]}" if known else None, content)


def faults_of(error: ServiceError | EngineError) -> list[Fault]:
    """What was refused, as faults to stand beside a form."""
    return list(error.faults) or [Fault("", error.code, error.detail, error.remedy)]


def fault_json(fault: Fault) -> dict[str, str]:
    """A fault as the script of a form puts it beside its field."""
    return {**vars(fault), "remedy": on_pages(fault.remedy)}


def status_of(error: ServiceError | EngineError) -> int:
    """The status of the page that tells of it."""
    return error.status if isinstance(error, ServiceError) else Invalid.status
