"""Works out what an experiment comes to, once, when all of its jobs have ended, and puts it on record.

Begun by whoever looks first, in a thread of its own and outside of any transaction. Two at a time would take twice the
memory to find the same, so one does; whoever looks meanwhile, or has waited for some seconds, is told that the
experiment is running still.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import replace

from sqlalchemy.orm import Session

from app.database import Database
from app.datasets import repository as datasets
from app.experiments import repository, service
from app.experiments.comparing import figures_of
from app.experiments.items import Item, items_of
from app.experiments.models import Experiment, ExperimentItem
from app.experiments.reading import Paired, left_by, paired, traces
from app.experiments.service import Seen
from app.incoming import at_hand
from app.storage import Storage

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""Of whoever looks first: the largest experiments take longer than a client waits for an answer."""
_one_at_a_time = threading.Lock()


def settled(database: Database, storage: Storage, tenant: str, experiment_id: str) -> Seen:
    """The experiment as it stands; if all of its jobs have ended, with what they come to.

    Raises:
        NotFound: the tenant has no such experiment.
    """
    with database.reading() as session:
        seen = service.look(session, tenant, experiment_id)
    if not _due(seen):
        return seen
    if not _one_at_a_time.acquire(blocking=False):
        # A thread that waited is one that nobody else is answered by, and a page asks anew every few seconds.
        return replace(seen, settling=True)

    def work() -> None:
        try:
            _settle(database, storage, tenant, experiment_id)
        finally:
            _one_at_a_time.release()

    if not _in_time(work):
        return replace(seen, settling=True)
    with database.reading() as session:
        return service.look(session, tenant, experiment_id)


def _in_time(work: Callable[[], None]) -> bool:
    """Do this in a thread; False: it goes on there. Raises what it raises in time."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except Exception as error:
            log.warning("what an experiment comes to was not found: %s", type(error).__name__)
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=copy_context().run, args=(run,), name="settling", daemon=True).start()
    if wait([done], PATIENCE_SECONDS).not_done:
        return False
    done.result()
    return True


def _settle(database: Database, storage: Storage, tenant: str, experiment_id: str) -> None:
    with database.reading() as session:
        seen = service.look(session, tenant, experiment_id)
        if not _due(seen):
            return
        traced = traces(session, seen)
        file = _file_of(session, seen.experiment)
    one = seen.experiment
    rows = paired(left_by(storage, len(seen.names), traced))
    figures = figures_of(seen.names, one.metric, one.margin, rows)
    items = _items(storage, one, file, rows)
    with database.session() as session:
        _store(session, one, figures, items)


def _due(seen: Seen) -> bool:
    return seen.experiment.figures is None and seen.experiment.cancelled_at is None and seen.ended


def _file_of(session: Session, one: Experiment) -> str | None:
    dataset = datasets.find(session, one.tenant, one.dataset_id) if one.human_items is not None else None
    return dataset.storage_key if dataset is not None else None


def _items(storage: Storage, one: Experiment, file: str | None, rows: Paired) -> list[Item]:
    """What people are to judge; nothing where they are not asked, or the rows have been erased."""
    if file is None or one.human_items is None:
        return []
    try:
        with at_hand(storage, file, "rows.parquet") as path:
            return items_of(path, rows, one.secret, one.human_items)
    except FileNotFoundError:
        return []


def _store(session: Session, one: Experiment, figures: dict[str, object], items: Sequence[Item]) -> None:
    # Held, or the data set could be erased meanwhile, and what was copied of it would outlive it.
    dataset = datasets.hold(session, one.tenant, one.dataset_id)
    if not repository.store_figures(session, one.id, figures) or dataset is None:
        return
    session.add_all(
        ExperimentItem(
            experiment_id=one.id,
            number=number,
            dataset_id=dataset.id,
            shown=item.shown,
            answers=list(item.answers),
        )
        for number, item in enumerate(items)
    )
