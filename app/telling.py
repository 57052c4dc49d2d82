"""What the operators' commands tell: facts, one a line, for people or as JSON; and the next step. Knows no process."""

import json
import shutil
import sys
from pathlib import Path

_REMARKS = {"key": "  (an admin key, shown only now: keep it)"}


def tell(*, as_json: bool, **facts: str) -> None:
    """Print each fact at once, on a line of its own."""
    for name, fact in facts.items():
        print(json.dumps({name: fact}) if as_json else f"{name}: {fact}{_REMARKS.get(name, '')}", flush=True)


def next_steps(address: str, key: str | None) -> str:
    """What to type in another shell to have a first model; `key` is None where it was shown at an earlier start."""
    command = _command()
    exported = key or f"...   # a key of yours; lost: {command} admin-key"
    return f"""\
next, in another shell:
  export FIFTYTWO_SERVER={address}
  export FIFTYTWO_KEY={exported}
  {command} submit --data FILE.csv --task text_classification --instructions 1,11,20,47 --wait --download out/
FILE.csv has the columns text and label; without data of your own: {command} demo"""


def _command() -> str:
    """As the user's shell finds it: by its name, or where it stands in an environment that is not activated."""
    beside = Path(sys.executable).with_name("fiftytwo")
    return str(beside) if shutil.which("fiftytwo") is None and beside.is_file() else "fiftytwo"
