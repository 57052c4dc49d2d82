"""Asks each dependency whether it is there, within seconds. Knows no HTTP."""

from collections.abc import Callable
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.storage import Storage

SECONDS = 2


class Down(Exception):
    """A dependency does not answer; the text says no more than an operator needs."""


def check_database(database: Database) -> None:
    """Raise Down where the database answers no query, or its tables are missing."""
    try:
        with database.reading() as session:
            session.execute(text("SELECT 1 FROM keys LIMIT 1"))
    except SQLAlchemyError as error:
        raise Down(type(error).__name__) from error


def check_storage(storage: Storage) -> None:
    """Raise Down where the store cannot be used."""
    try:
        storage.check()
    except OSError as error:
        raise Down(type(error).__name__) from error


def check_broker(redis_url: str | None) -> None:
    """Raise Down where no broker answers a ping."""
    if redis_url is None:
        raise Down("no broker is set: start `fiftytwo serve`, or set FIFTYTWO_REDIS_URL")
    # Celery calls a socket `redis+socket://`, the client library `unix://`.
    socket = urlsplit(redis_url).scheme == "redis+socket"
    url = "unix" + redis_url.removeprefix("redis+socket") if socket else redis_url
    try:
        with Redis.from_url(url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS) as client:
            client.ping()
    except (RedisError, OSError) as error:
        raise Down(type(error).__name__) from error


def states(checks: dict[str, Callable[[], None]]) -> dict[str, dict[str, str | None]]:
    """Each dependency's state (up or down) and, if it is down, why."""
    found: dict[str, dict[str, str | None]] = {}
    for name, check in checks.items():
        try:
            check()
            found[name] = {"status": "up", "detail": None}
        except Down as down:
            found[name] = {"status": "down", "detail": str(down)}
    return found
