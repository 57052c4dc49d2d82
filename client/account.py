"""Which server, and with which key: flags, then the environment, then the file that `fiftytwo login` wrote."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from client.errors import BadUsage

DEFAULT_SERVER = "http://127.0.0.1:8052"


@dataclass(frozen=True)
class Account:
    """A server's address and an API key for it."""

    server: str
    key: str


def account_file() -> Path:
    """Where `login` keeps the account: the user's folder for settings, by the platform's custom."""
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "fiftytwo" / "account.json"


def save(account: Account) -> Path:
    """Write the account for later commands, readable by this user only."""
    path = account_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    # Created with its final mode: a chmod afterwards would leave a moment in which others can read the key.
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"server": account.server, "key": account.key}, file)
    os.replace(part, path)
    return path


def find(server: str | None, key: str | None) -> Account:
    """The account to use, from the most to the least explicit source.

    A saved key is only ever sent to the server that it was saved for.

    Raises:
        BadUsage: no key anywhere, or the saved account cannot be read.
    """
    saved = _saved()
    server = server or os.environ.get("FIFTYTWO_SERVER") or (saved.server if saved else DEFAULT_SERVER)
    key = key or os.environ.get("FIFTYTWO_KEY")
    if not key and saved and saved.server.rstrip("/") == server.rstrip("/"):
        key = saved.key
    if not key:
        raise BadUsage(
            f"no key for {server}",
            remedy="fiftytwo login --server URL --key KEY, or set FIFTYTWO_KEY (`fiftytwo serve` prints the first key)",
        )
    return Account(server, key)


def _saved() -> Account | None:
    path = account_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Account(str(content["server"]), str(content["key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadUsage(f"cannot read {path}: {error}", remedy="fiftytwo login --server URL --key KEY") from error
