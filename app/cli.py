"""The operators' commands: serve, api, worker, migrate, admin-key, demo. Each loads only what it needs, by name.

A worker must not import what the API needs and the API not what the demo needs, so nothing heavy is imported here.
"""

import argparse
import gc
import importlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from app.logs import configure
from app.settings import Settings
from client.errors import BadUsage, ExitCode

_GRACEFUL_SECONDS = 5
_KEPT_BYTES = 32 << 20


def load(module: str) -> Any:
    """The one lazy loader of these commands."""
    return importlib.import_module(module)


def main(words: Sequence[str]) -> int:
    """Run one operators' command and give its exit code."""
    configure("text")
    # Every single request and every plug-in that is set up are nobody's news.
    for chatty in ("httpx", "alembic.runtime.plugins"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    parsed = parser().parse_args(words)
    return int(parsed.run(parsed))


def serve(words: argparse.Namespace) -> int:
    """Run the whole service on this machine until Ctrl-C."""
    # Which step of the schema a start takes is news to who migrates, not to who serves.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    load("app.serve").serve(_settings(words), as_json=words.json)
    return ExitCode.OK


def api(words: argparse.Namespace) -> int:
    """Run only the API."""
    settings = _settings(words)
    create_app = load("app.main").create_app
    # The imported modules stay for good; to look through them for garbage would hold requests up for half a second.
    # And requests leave next to no cycles, so to look after every 700 objects finds nothing.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    # What is streamed in comes in blocks of 256 KB, which the C library would get from the kernel anew each time.
    load("engine.allocator").keep_freed_memory(_KEPT_BYTES)
    load("uvicorn").run(
        create_app,
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="app.protocol:BoundedHead",
        access_log=False,  # `log_requests` is ours: with the id of the request, and without the address' query
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )
    return ExitCode.OK


def worker(words: argparse.Namespace) -> int:
    """Run only one worker."""
    if _settings(words).redis_url is None:
        raise BadUsage(
            "FIFTYTWO_REDIS_URL is not set, so the worker has nothing to listen to",
            remedy="set it to the broker's address, or run everything with `fiftytwo serve`",
        )
    name = f"{words.name}@%h"
    load("worker.main").app.worker_main(["worker", "--without-gossip", "--without-mingle", "--hostname", name])
    return ExitCode.OK


def migrate(words: argparse.Namespace) -> int:
    """Bring the database to this version, and store FIFTYTWO_BOOTSTRAP_KEY where it is set and there is no key yet."""
    settings = _settings(words)
    load("app.migrate").migrate(settings)
    if settings.bootstrap_key is not None:
        with closing(load("app.database").Database(settings.database)) as database:
            load("app.auth.bootstrap").bootstrap(database, settings)
    if words.json:
        print('{"migrated": true}')
    return ExitCode.OK


def admin_key(words: argparse.Namespace) -> int:
    """Make another admin key straight in the database, where the first is lost."""
    secret = load("app.auth.recovery").recover(_settings(words))
    load("app.telling").tell(as_json=words.json, key=secret)
    return ExitCode.OK


def demo(words: argparse.Namespace) -> int:
    """Train, compress and prove a small model on a server of its own, and show its receipt."""
    return int(load("app.demo").demo(json_to=words.json, keep=words.keep))


def parser() -> argparse.ArgumentParser:
    """The grammar of the operators' commands."""
    top = _Parser(prog="fiftytwo")
    verbs = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    runs = {"serve": serve, "api": api, "worker": worker, "migrate": migrate, "admin-key": admin_key}
    for name, run in runs.items():
        one = command(name, run)
        one.add_argument("--data-dir", type=Path, metavar="DIR", help="FIFTYTWO_DATA_DIR (default ./fiftytwo-data)")
        one.add_argument("--json", action="store_true", help="tell what is told as JSON, one line a fact")
        if name in ("serve", "api"):
            one.add_argument("--host", help="FIFTYTWO_HOST (default 127.0.0.1)")
            one.add_argument("--port", type=int, help="FIFTYTWO_PORT (default 8052)")
        if name == "serve":
            one.add_argument("--workers", type=int, help="FIFTYTWO_WORKERS (default 1)")
        if name == "worker":
            one.add_argument("--name", default="worker", help="its name in Celery")
    shown = command("demo", demo)
    shown.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the receipt there (without FILE: to stdout)"
    )
    shown.add_argument("--keep", type=Path, metavar="DIR", help="leave the model and the server's data there")
    return top


def _settings(words: argparse.Namespace) -> Settings:
    """The settings of the environment, the flags over them.

    Raises:
        BadUsage: a setting is out of its bounds; every such setting is named.
    """
    names = ("data_dir", "host", "port", "workers")
    given: Mapping[str, Any] = {name: value for name in names if (value := getattr(words, name, None)) is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        faults = [f"FIFTYTWO_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()]
        raise BadUsage("; ".join(faults), remedy="mend these settings, or unset them for their defaults") from error
    configure(settings.log_format)
    return settings


class _Parser(argparse.ArgumentParser):
    """Faults of the words are reported by `client.cli`, as those of every other command."""

    def error(self, message: str) -> NoReturn:
        raise BadUsage(message, remedy=f"{self.prog} --help")
