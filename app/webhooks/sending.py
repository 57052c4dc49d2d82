"""Sends what is due, from a thread of every worker: at least once, signed, never to an address that was not checked.

A claim is a compare-and-set, so any number may send at once; what a killed sender had claimed falls due again. Knows no
job and no request.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import httpx
from standardwebhooks import Webhook

from app.database import Database
from app.moments import rfc3339
from app.webhooks import repository
from app.webhooks.addresses import Refused, Target, Unresolved
from app.webhooks.models import DELIVERED, FAILED, PENDING
from app.webhooks.repository import Message

log = logging.getLogger(__name__)
# It tells of each request with the whole URL, which is a secret of its owner's as often as not.
logging.getLogger("httpx").setLevel(logging.WARNING)

AT_A_TIME = 20
SECONDS = 15.0
"""Of one attempt, from the look-up of the name to the status: whoever answers drop by drop holds nobody up."""
CLAIM_SECONDS = 90.0
FIRST_SECONDS, FACTOR, MOST_SECONDS, TRIES = 5.0, 4.0, 6 * 3600.0, 12
"""5 s, 20 s, 80 s and so on up to 6 hours: twelve attempts in about a day."""
LOGGED_ATTEMPTS = 30
GONE = 410


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt: a status, or why there is none."""

    status: int | None
    error: str | None
    seconds: float

    @property
    def heard(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300


def wait_before(tries: int, jitter: Callable[[], float] = random.random) -> float | None:
    """Seconds until the next attempt after so many; None: there is none. Jitter spreads those that failed together."""
    if tries >= TRIES:
        return None
    return min(MOST_SECONDS, FIRST_SECONDS * FACTOR ** (tries - 1)) * (0.8 + 0.4 * jitter())


def deliver_due(database: Database, *, private: bool) -> int:
    """Send what is due, some at a time and those together; how many were tried."""
    with database.reading() as session:
        found = repository.due(session, AT_A_TIME)
    if not found:
        return 0
    with database.session() as session:
        claimed = [one for each in found if (one := repository.claim(session, each, CLAIM_SECONDS)) is not None]
    outcomes = asyncio.run(_send_all(claimed, private=private))
    with database.session() as session:
        for message, outcome in zip(claimed, outcomes, strict=True):
            wait = None if outcome.status == GONE else wait_before(message.tries)
            state = DELIVERED if outcome.heard else FAILED if wait is None else PENDING
            told = [*message.log, _logged(message, outcome)][-LOGGED_ATTEMPTS:]
            repository.settle(session, message, state, wait or 0.0, [dict(one) for one in told])
            # Neither the address nor the body: both are the owner's.
            reason = outcome.error or outcome.status
            log.info("delivery %s, attempt %d: %s (%s)", message.id, message.attempt, state, reason)
    return len(claimed)


def _logged(message: Message, outcome: Outcome) -> dict[str, object]:
    return {
        "attempt": message.attempt,
        "at": rfc3339(datetime.now(UTC)),
        "status_code": outcome.status,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
    }


async def _send_all(messages: Sequence[Message], *, private: bool) -> list[Outcome]:
    # No proxy of the environment's: it would look names up by itself, past the check.
    async with httpx.AsyncClient(verify=_trust(), trust_env=False, timeout=SECONDS, follow_redirects=False) as http:
        return await asyncio.gather(*(_attempt(http, message, private=private) for message in messages))


@cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context()


async def _attempt(http: httpx.AsyncClient, message: Message, *, private: bool) -> Outcome:
    began = time.monotonic()
    status, error = None, None
    try:
        async with asyncio.timeout(SECONDS):
            status = await _send(http, message, private=private)
    except TimeoutError:
        error = f"no answer within {SECONDS:g} seconds"
    except Refused as refused:
        error = str(refused)
    except Unresolved:
        error = "the host's name cannot be looked up"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as failed:
        error = type(failed).__name__
    return Outcome(status, error, time.monotonic() - began)


async def _send(http: httpx.AsyncClient, message: Message, *, private: bool) -> int:
    """One POST to the address that was checked just now; the status of the answer, whose body is not read."""
    target = Target.of(message.url)
    address = await asyncio.to_thread(target.address, private=private)
    now = datetime.now(UTC)
    url = httpx.URL(message.url)
    headers = {
        "Host": url.netloc.decode("ascii"),
        "Content-Type": "application/json",
        # Never used again: the next message to this address may be for another name, and verify another certificate.
        "Connection": "close",
        "User-Agent": "fiftytwo-webhooks/1",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(message.secret).sign(message.id, now, message.body),
    }
    request = http.build_request(
        "POST",
        url.copy_with(host=address),
        content=message.body.encode(),
        headers=headers,
        extensions={"sni_hostname": target.host},
    )
    answer = await http.send(request, stream=True)
    await answer.aclose()
    return answer.status_code
