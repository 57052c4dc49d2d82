"""One answer for one request of OpenAI's client, which sends no Idempotency-Key but counts its tries.

A try after the first is told apart from news by what it sends: the same bytes to the same address with the same key,
shortly after. The answer to each first try is therefore kept, in place of that to an equal request before it. Knows
nothing of what is made.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.database import insert_into
from app.idempotency import Claim, IdempotencyKey, again, keep_answer, once
from app.identity import Identity

COUNT = "x-stainless-retry-count"
WINDOW = timedelta(minutes=15)
"""How long after an answer a retry of it may come: the client waits 10 minutes for one, and 2 before the next."""
FIRST, RETRY = "first try", "retry"


@dataclass(frozen=True)
class Tries:
    """The claim of a request whose client counts its tries; `arrived` is when this one began."""

    key: str
    number: int
    arrived: datetime

    def begin(self, session: Session, tenant: str) -> Response | None:
        """Claim the request, or give the answer to an earlier try of it."""
        if first := self.replay(session, tenant):
            return first
        now = datetime.now(UTC)
        old = IdempotencyKey.created_at < now - WINDOW
        session.execute(delete(IdempotencyKey).where(old, IdempotencyKey.request_hash.in_((FIRST, RETRY))))
        row = {"tenant": tenant, "key": self.key, "status": 0, "headers": {}, "body": "", "created_at": now}
        claim = insert_into(session, IdempotencyKey).values(request_hash=RETRY if self.number else FIRST, **row)
        if self.number == 0 and not self._answered_since(session, tenant):
            renewed = {name: getattr(claim.excluded, name) for name in ("request_hash", "status", "created_at")}
            session.execute(claim.on_conflict_do_update(index_elements=["tenant", "key"], set_=renewed))
            return None
        alone = claim.on_conflict_do_nothing().returning(IdempotencyKey.key)
        return None if session.execute(alone).first() is not None else self.replay(session, tenant)

    def replay(self, session: Session, tenant: str) -> Response | None:
        """The answer to an earlier try of this very request, if there is one."""
        if self.number == 0 and not self._answered_since(session, tenant):
            return None
        mine = (IdempotencyKey.tenant == tenant, IdempotencyKey.key == self.key)
        first = session.scalar(select(IdempotencyKey).where(*mine, IdempotencyKey.created_at >= self.arrived - WINDOW))
        return again(first) if first is not None else None

    def _answered_since(self, session: Session, tenant: str) -> bool:
        """Whether a retry of this first try was faster than itself."""
        mine = (IdempotencyKey.tenant == tenant, IdempotencyKey.key == self.key)
        retried = (IdempotencyKey.request_hash == RETRY, IdempotencyKey.created_at >= self.arrived)
        return session.scalar(select(IdempotencyKey.key).where(*mine, *retried)) is not None

    def finish(self, session: Session, tenant: str, response: Response) -> Response:
        """Store the answer beside the object that it tells of."""
        keep_answer(session, tenant, self.key, response, bytes(response.body))
        return response


def claim_of(request: Request, identity: Identity, key: str | None, content: bytes, arrived: datetime) -> Claim:
    """The claim of a request with this content: by its Idempotency-Key, else by what its client counts, else none."""
    count = request.headers.get(COUNT, "")
    if key is not None or not (count.isascii() and count.isdigit()) or len(count) > 3:
        return once(request, key, content)
    of = f"{identity.key} {request.method} {request.url.path}\n".encode() + content
    # With a space, which no Idempotency-Key holds.
    return Tries(f"try {hashlib.sha256(of).hexdigest()}", int(count), arrived)


def retried(request: Request) -> bool:
    """Whether the client says that it sends this request again."""
    return request.headers.get(COUNT, "0") != "0"
