"""One answer for one Idempotency-Key: the first is stored in the very transaction that makes the object.

`begin` claims the key (a second request waits for the first one's commit), `finish` stores the answer; an error between
the two rolls both back. Knows nothing of what is made.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

from fastapi import Depends, Header
from sqlalchemy import JSON, String, Text, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column
from starlette.requests import Request
from starlette.responses import Response

from app.database import Base, UtcDateTime, insert_into
from app.errors import Invalid, tell_further
from engine.errors import Fault

KEPT_HEADERS = ("location", "retry-after", "etag", "cache-control", "content-type")


class IdempotencyKey(Base):
    """A key that a tenant has used, what the request was, and what was answered."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(default=0)
    headers: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    body: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Claim(Protocol):
    """What tells a repeat of a request from news, in the transaction that makes the object."""

    def begin(self, session: Session, tenant: str) -> Response | None:
        """Claim the request, or give the first answer again."""

    def replay(self, session: Session, tenant: str) -> Response | None:
        """The first answer, if there is one."""

    def finish(self, session: Session, tenant: str, response: Response) -> Response:
        """Store the answer beside the object that it tells of."""


@dataclass(frozen=True)
class Once:
    """The Idempotency-Key of this request, if it carries one, and the hash of the request."""

    key: str | None
    request_hash: str
    keep: timedelta
    fault: Fault | None = None
    """Why the header is no key: told with what is wrong with the body, or alone by `refuse`."""

    def refuse(self) -> None:
        """Refuse a request whose header is no key; raises Invalid."""
        if self.fault is not None:
            raise Invalid(self.fault.detail, faults=[self.fault])

    def begin(self, session: Session, tenant: str) -> Response | None:
        """Claim the key, or give the first answer again; Invalid where it is none, or the first request another one."""
        self.refuse()
        if self.key is None:
            return None
        now = datetime.now(UTC)
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - self.keep))
        row = {"tenant": tenant, "key": self.key, "request_hash": self.request_hash, "created_at": now}
        claim = insert_into(session, IdempotencyKey).values(status=0, headers={}, body="", **row)
        claim = claim.on_conflict_do_nothing()
        if session.execute(claim.returning(IdempotencyKey.key)).first() is not None:
            return None
        return self.replay(session, tenant)

    def replay(self, session: Session, tenant: str) -> Response | None:
        """The first answer, if there is one; Invalid where the first request was another one.

        That is told alone: whether the key is wrong or the body, and so what else is, its sender knows.
        """
        if self.key is None:
            return None
        mine = (IdempotencyKey.tenant == tenant) & (IdempotencyKey.key == self.key)
        first = session.scalar(select(IdempotencyKey).where(mine))
        if first is None or first.created_at < datetime.now(UTC) - self.keep:
            return None
        if first.request_hash != self.request_hash:
            detail = "this Idempotency-Key came with another request before"
            raise Invalid(
                detail,
                code="idempotency_key_reused",
                faults=[Fault("", "idempotency_key_reused", detail, "use a new key for a new request")],
            )
        return again(first)

    def finish(self, session: Session, tenant: str, response: Response, replay: bytes | None = None) -> Response:
        """Store the answer beside the object that it tells of; `replay` stands in for a body that must not be kept."""
        if self.key is not None:
            keep_answer(session, tenant, self.key, response, bytes(response.body) if replay is None else replay)
        return response


UNCLAIMED = Once(None, "", timedelta())
"""The claim of what no request may claim: it is made anew each time."""


def keep_answer(session: Session, tenant: str, key: str, response: Response, body: bytes) -> None:
    """Store an answer, with this body, under a key that is claimed."""
    kept = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
    session.execute(
        update(IdempotencyKey)
        .where(IdempotencyKey.tenant == tenant, IdempotencyKey.key == key)
        .values(status=response.status_code, headers=kept, body=body.decode())
    )


def again(first: IdempotencyKey) -> Response:
    """The answer that was stored."""
    return Response(first.body, first.status, headers={**first.headers, "Idempotent-Replayed": "true"})


_KEY = re.compile(r"^[\x21-\x7e]+$")
_LONGEST = 255


def is_key(text: str) -> bool:
    """Whether the header may have this value."""
    return len(text) <= _LONGEST and _KEY.match(text) is not None


def _fault_of(key: str | None) -> Fault | None:
    if key is None or is_key(key):
        return None
    detail = f"the header Idempotency-Key is not 1 to {_LONGEST} visible characters of ASCII"
    return Fault("", "wrong_header", detail, "mend the header: send a new UUID, say, without spaces")


def once(request: Request, key: str | None, content: bytes) -> Once:
    """The claim for a request with this content."""
    keep = timedelta(hours=request.app.state.settings.idempotency_hours)
    if key is None:
        return Once(None, "", keep)
    if fault := _fault_of(key):
        return Once(None, "", keep, fault)
    target = f"{request.method} {request.url.path}?{request.url.query}\n{hashlib.sha256(content).hexdigest()}"
    return Once(key, hashlib.sha256(target.encode()).hexdigest(), keep)


async def _header(
    request: Request,
    key: Annotated[
        str | None,
        # What it may hold is no matter of FastAPI's, which would refuse it before anybody has looked at the body.
        Header(
            alias="Idempotency-Key",
            description="Makes a repeat of this request give the first answer again.",
            json_schema_extra={"minLength": 1, "maxLength": _LONGEST, "pattern": _KEY.pattern},
        ),
    ] = None,
) -> str | None:
    if fault := _fault_of(key):
        tell_further(request, fault)
    return key


IdempotencyHeader = Annotated[str | None, Depends(_header)]
"""The header as it came; what is no key is told by the `Once` that is made of it."""


async def _once(request: Request, key: IdempotencyHeader) -> Once:
    return once(request, key, await request.body() if key is not None else b"")


Idempotent = Annotated[Once, Depends(_once)]
