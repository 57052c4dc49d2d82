"""Which server, and with which key: flags, then the environment, then the file that `fiftytwo login` wrote."""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from client.errors import BadUsage

DEFAULT_SERVER = "http://127.0.0.1:8052"


@dataclass(frozen=True)
class Account:
    """A server's address, an API key for it, and the public key of its receipts as it was at login."""

    server: str
    key: str
    receipt_key: str | None = None


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
        json.dump(asdict(account), file)
    os.replace(part, path)
    return path


def given(server: str | None, key: str | None) -> tuple[str | None, str | None]:
    """The address and the key that flags name, or else the environment."""
    return server or os.environ.get("FIFTYTWO_SERVER"), key or os.environ.get("FIFTYTWO_KEY")


def find(server: str | None, key: str | None) -> Account:
    """The account to use, from the most to the least explicit source.

    A saved key is only ever sent to the server that it was saved for.

    Raises:
        BadUsage: no key anywhere, or the saved account cannot be read.
    """
    saved = _saved()
    server, key = given(server, key)
    server = server or (saved.server if saved else DEFAULT_SERVER)
    if not key and saved and saved.server.rstrip("/") == server.rstrip("/"):
        key = saved.key
    if not key:
        raise BadUsage(
            f"no key for {server}",
            remedy="fiftytwo login --server URL --key KEY, or set FIFTYTWO_KEY (`fiftytwo serve` prints the first key)",
        )
    return Account(server, key)


def pinned_key() -> str | None:
    """The receipts' public key of the server that was logged in to, if any."""
    saved = _saved()
    return saved.receipt_key if saved is not None else None


def _saved() -> Account | None:
    path = account_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pinned = content.get("receipt_key")
        return Account(str(content["server"]), str(content["key"]), None if pinned is None else str(pinned))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadUsage(f"cannot read {path}: {error}", remedy="fiftytwo login --server URL --key KEY") from error
