"""The bell: a Celery message that tells the workers to look for a queued job. Knows no job.

The jobs table is the outbox, so a bell may be lost or rung twice: workers look by themselves now and then, and a claim
is a compare-and-set. Hence nobody waits for the broker here.
"""

import logging
import threading

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

QUEUE = "jobs"
TASK = "worker.run_next"
# A message costs more than a submit. A worker that was woken rings on while jobs wait, so a burst needs but a few: the
# bell rests after each, twice as long while it is asked again meanwhile.
REST_SECONDS = 0.05
MOST_REST_SECONDS = 0.4


def celery_app(redis_url: str) -> Celery:
    """The Celery application, as the API and the workers share it."""
    app = Celery("fiftytwo", broker=redis_url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # The lease in the database guarantees execution, not the broker.
        task_acks_late=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        # One job at a time, in the worker's own process: the job itself is a process anyway.
        worker_pool="solo",
        worker_pool_start_method="spawn",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_publish_retry=False,
        broker_transport_options={"visibility_timeout": 3600, "socket_timeout": 10, "socket_connect_timeout": 2},
    )
    return app


class Bell:
    """Rings from a thread of its own, the first time at once; rings that come until it has rested become one."""

    def __init__(self, redis_url: str) -> None:
        self._celery = celery_app(redis_url)
        # A broker that is frozen may hold up this thread only for so long.
        self._celery.conf.broker_transport_options |= {"socket_timeout": 2}
        self._asked = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Ask for a message to the workers; returns at once and never raises."""
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._ring_when_asked, name="bell", daemon=True)
                    self._thread.start()
        self._asked.set()

    def close(self) -> None:
        """End the thread; the workers look by themselves for what was not rung."""
        self._closing.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._celery.close()

    def _ring_when_asked(self) -> None:
        rest = REST_SECONDS
        while not self._closing.is_set():
            self._asked.wait()
            self._asked.clear()
            if self._closing.is_set():
                return
            try:
                self._celery.send_task(TASK, queue=QUEUE, retry=False, ignore_result=True)
            except (KombuError, RedisError, OSError) as error:
                log.warning("the bell was not heard, the workers will look by themselves: %s", error)
            self._closing.wait(rest)
            rest = min(2 * rest, MOST_REST_SECONDS) if self._asked.is_set() else REST_SECONDS
