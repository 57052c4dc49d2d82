"""From a secret to whoever holds it, with a memory of a second so that a busy key costs no query each time.

Knows nothing of HTTP. A revoked key stops at once in this process and within the second in any other.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sqlalchemy import select

from app.auth.models import Key
from app.database import Database
from app.identity import Identity, Role

MEMORY_SECONDS = 1.0
MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class _Remembered:
    identity: Identity
    renew_at: float
    until: float


class KeyRing:
    """Looks keys up in the database and remembers them for a second; `clock` gives seconds."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}
        self._forgotten = 0

    @staticmethod
    def digest(secret: str) -> str:
        """The sha256 of a secret in hex: all that is stored of it."""
        return hashlib.sha256(secret.encode()).hexdigest()

    def remembered(self, digest: str) -> Identity | None:
        """The holder, if it was looked up within the last second; None as well to the one who is to look it up anew."""
        entry = self._remembered.get(digest)
        now = self._clock()
        if entry is None or entry.until <= now:
            return None
        if entry.renew_at <= now:
            # One looks it up while the others go on with what is remembered: a busy key has many askers at any moment.
            entry.renew_at = entry.until
            return None
        return entry.identity

    def look_up(self, digest: str) -> Identity | None:
        """The holder of the secret with this digest, from the database."""
        before = self._forgotten
        with self._database.reading() as session:
            key = session.scalar(select(Key).where(Key.secret_sha256 == digest))
        # The index has compared already; this comparison takes the same time wherever the digests differ.
        if key is None or not hmac.compare_digest(key.secret_sha256, digest):
            self._remembered.pop(digest, None)
            return None
        identity = Identity(key.tenant, key.id, cast(Role, key.role))
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        now = self._clock()
        self._remembered[digest] = _Remembered(identity, now + MEMORY_SECONDS / 2, now + MEMORY_SECONDS)
        if before != self._forgotten:
            # A key was revoked while this one was read: what was read may be older than that.
            self._remembered.pop(digest, None)
        return identity

    def known(self, key_id: str) -> bool:
        """Whether there still is the key with this id; asks the database."""
        with self._database.reading() as session:
            return session.scalar(select(Key.id).where(Key.id == key_id)) is not None

    def forget(self) -> None:
        """Drop the memory, after a key was revoked."""
        self._forgotten += 1
        self._remembered.clear()
