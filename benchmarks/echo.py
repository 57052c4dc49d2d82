"""Celery's own publish-to-start: a worker whose task tells at once when its first line ran.

    celery -A benchmarks.echo worker

The application is made with the settings of the product's bell; the broker is named by the variable ECHO_BROKER.
"""

import os
import time

import redis

from app.queue import celery_app

QUEUE = "echo"
TASK = "benchmarks.echo"
ANSWERS = "echo-answers"


def broker(url: str) -> redis.Redis:
    """A connection to the broker of a Celery URL."""
    return redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"))


if url := os.environ.get("ECHO_BROKER"):
    app = celery_app(url)
    app.conf.task_default_queue = QUEUE
    answers = broker(url)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]  # Celery ships no types
    def echo() -> None:
        """Tell the time of the first line."""
        answers.rpush(ANSWERS, str(time.time()))
