"""The Celery application of the workers, with its one task, and the start and end of a worker process.

    celery -A worker.main worker --without-gossip --without-mingle

Reads the settings when it is imported, as Celery wants it. Knows nothing of how a job is run.
"""

import os
import socket
from contextlib import suppress

from celery.signals import celeryd_init, setup_logging, worker_ready, worker_shutdown, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.jobs.lifecycle import deliver_due, erase_due, owner_name, sweep
from app.jobs.lifecycle import leave as take_leave
from app.logs import configure
from app.queue import TASK, Bell, celery_app
from app.settings import Settings
from app.storage import storage_for
from worker.lease import DATABASE_AWAY
from worker.leftovers import SWEEP_SECONDS, sweep_runs
from worker.rescue import Rescue, Rounds
from worker.tasks import Worker

TELL_SECONDS = 2.0

settings = Settings()
if settings.redis_url is None:
    raise SystemExit("FIFTYTWO_REDIS_URL is not set: name a broker, or start everything with `fiftytwo serve`")

app = celery_app(settings.redis_url)
database = Database(settings.database)
bell = Bell(settings.redis_url)
worker = Worker(settings, database, storage_for(settings), bell, owner=owner_name(socket.gethostname(), os.getpid()))


def ring_if_idle() -> None:
    """Ring for a queued job, unless this worker will look for one by itself when it has done its own."""
    if not worker.busy.is_set():
        bell.ring()


def erase() -> None:
    """Erase the files that are due, and what a killed API has left of uploads."""
    erase_due(database, worker.storage)
    sweep(settings.data_dir)


def clear_up() -> None:
    """Erase what runs have left here whose jobs others have ended."""
    sweep_runs(database, settings.data_dir)


def tell() -> None:
    """Send what is to be told of jobs that have ended, until nothing more is due."""
    while deliver_due(database, private=settings.webhook_private_addresses) and not worker.stopping.is_set():
        pass


rescue = Rescue(database, worker.owner, settings.max_lapses, ring_if_idle, 2 * settings.heartbeat_seconds)
rounds = (
    Rounds("rescue", rescue.round, settings.rescue_seconds),
    # In a thread of its own: no lost job waits for a slow store.
    Rounds("erasure", erase, settings.rescue_seconds),
    Rounds("leftovers", clear_up, SWEEP_SECONDS),
    Rounds("webhooks", tell, TELL_SECONDS),
)


@app.task(name=TASK)  # type: ignore[untyped-decorator]  # Celery ships no types
def run_next() -> None:
    """Run queued jobs until none is left."""
    worker.run_next()


@setup_logging.connect  # type: ignore[untyped-decorator]
def log_plainly(**_: object) -> None:
    """Log to stderr in one form; otherwise Celery puts its own handlers in place."""
    configure(settings.log_format)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def sign(sender: str, **_: object) -> None:
    """Sign leases with the name that Celery knows this worker by, so that who started it knows them too."""
    worker.owner = rescue.name = owner_name(sender, os.getpid())


@worker_ready.connect  # type: ignore[untyped-decorator]
def start(**_: object) -> None:
    """Start the rounds, and open the connections that a claim needs, so that the first one does not wait for them."""
    for one in rounds:
        one.start()
    with suppress(*DATABASE_AWAY), database.session() as session:
        session.connection()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def leave(**_: object) -> None:
    """SIGTERM or SIGINT came: the running job is handed back."""
    worker.stopping.set()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def close(**_: object) -> None:
    """Close what is open."""
    for one in rounds:
        one.stop()
    with suppress(SQLAlchemyError):  # whoever is missed for an hour has done no harm
        take_leave(database, worker.owner)
    bell.close()
    database.close()
