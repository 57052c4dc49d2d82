"""A user's way through a running service: sends jobs, waits, reads receipts, hears refusals. Knows no step.

All of it over HTTP by the client package, and by the command `fiftytwo` where a user would type it.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.servers import HOST, KEY, Server
from benchmarks.texts import ROOT
from client.errors import Refused
from client.http import Client, Json
from client.progress import follow

TAKEN: Json = {"status": "taken"}
"""What `refusal` gives where the server refused nothing."""


class Failed(RuntimeError):
    """A job that should have succeeded did not; says how it ended."""


@dataclass(frozen=True)
class Done:
    """A job that succeeded: what was sent, the job as it stands, its receipt ({} where its kind has none)."""

    sent: Json
    job: Json
    receipt: Json

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.job["id"])

    def artifact(self, kind: str) -> Json:
        """The job's artifact of this kind."""
        found: Json = next(one for one in self.job["artifacts"] if one["kind"] == kind)
        return found


@dataclass
class Walk:
    """A running server, a scratch folder, and the jobs that several steps need.

    `quick`: everything is tiny, and figures only need to exist.
    """

    server: Server
    folder: Path
    quick: bool
    client: Client
    kept: dict[str, Done] = field(default_factory=dict)

    def scratch(self, name: str) -> Path:
        """A folder of this name."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, body: Json, client: Client | None = None) -> Done:
        """Submit a job and wait for its good end.

        Raises:
            Failed: it ended otherwise.
            ClientError: it was refused, or the server is gone.
        """
        asked = client or self.client
        return finished(asked, body, asked.post("/v1/jobs", body))

    def once(self, name: str, make: Callable[[], Done]) -> Done:
        """The job of this name, run by whichever step needs it first."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def tenant(self, name: str) -> Client:
        """A member's client in a tenant of its own, where nobody else has touched any row."""
        key = self.client.post("/v1/keys", {"name": f"{name} of the walk", "role": "member", "tenant": name})
        return Client(self.client.server, str(key["secret"]))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type `fiftytwo WORDS`, with an account file of the walk's own."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYTWO_")}
        environment["XDG_CONFIG_HOME"] = str(self.scratch("config"))
        line = [sys.executable, "-m", "client.cli", *words]
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def login(self) -> subprocess.CompletedProcess[str]:
        """Keep the server's address, the key, and the public key of its receipts."""
        return self.command("login", "--server", f"http://{HOST}:{self.server.port}", "--key", KEY)


def finished(client: Client, sent: Json, job: Json) -> Done:
    """Wait for the good end of a job that is under way.

    Raises:
        Failed: it ended otherwise.
    """
    ended = follow(client, str(job["id"]), Console(stderr=True))
    if ended["state"] != "succeeded":
        raise Failed(f"the job {ended['state']}: {ended['error']}")
    return Done(sent, ended, client.get(ended["receipt_url"]) if ended["receipt_url"] else {})


def refusal(call: Callable[[], object]) -> Json:
    """What the server said to a request that it must refuse; TAKEN where it took it."""
    try:
        call()
    except Refused as error:
        faults: Sequence[Json] = error.problem.get("errors") or [{}]
        first: dict[str, Any] = {"detail": error.detail, "code": error.problem.get("code"), **faults[0]}
        told = {"status": error.status, "code": first["code"], "detail": first["detail"]}
        remedy = first.get("remedy") or error.remedy
        return told | ({"remedy": remedy} if remedy else {}) | ({"left": first["left"]} if "left" in first else {})
    return dict(TAKEN)
