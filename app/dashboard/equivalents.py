"""The same job for a shell: `curl` and `fiftytwo submit`. Never with a key or a secret: the shell's own
variable stands for the one, a word to be replaced for the other."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from app.dashboard.guard import over_tls
from engine.catalogue import named

KEY = "$FIFTYTWO_KEY"
SECRET = "whsec_YOUR_SECRET"
_FLAGS = ("task", "model", "name")
_SECTIONS = ("training", "limits", "export")


def server_of(request: Request) -> str:
    """The address that this server was reached by."""
    return f"{'https' if over_tls(request) else 'http'}://{request.url.netloc}"


def shown(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body as it may be shown: a webhook's secret is nobody's to read over a shoulder."""
    webhook = body.get("webhook")
    if not isinstance(webhook, Mapping) or "secret" not in webhook:
        return body
    return {**body, "webhook": {**webhook, "secret": SECRET}}


def body_text(body: Mapping[str, Any]) -> str:
    """The body of `POST /v1/jobs`, to be read."""
    return json.dumps(body, indent=2, ensure_ascii=False)


def curl(server: str, body: Mapping[str, Any]) -> str:
    """The request as a command; the JSON stands between single quotes, so it holds none."""
    quoted = body_text(body).replace("'", "\\u0027")
    return (
        f"curl -X POST {server}/v1/jobs \\\n"
        f'  -H "Authorization: Bearer {KEY}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{quoted}'"
    )


def submit(server: str, body: Mapping[str, Any]) -> str:
    """The request as `fiftytwo submit`, which reads the key from the same variable."""
    left = dict(body)
    words: list[tuple[str, ...]] = []
    if (dataset := left.get("dataset")) and isinstance(dataset, str) and dataset.startswith("ds_"):
        words.append(("--data", left.pop("dataset")))
    words += [(f"--{name}", left.pop(name)) for name in _FLAGS if isinstance(left.get(name), str)]
    if (chosen := left.pop("instructions", None)) is not None:
        words.append(("--instructions", _chosen(chosen)))
    for section in _SECTIONS:
        words += [("--set", f"{section}.{name}={_value(value)}") for name, value in left.pop(section, {}).items()]
    if left.get("kind") == "train":
        left.pop("kind")
    words += [("--set", f"{name}={_value(value)}") for name, value in left.items()]
    # After `=` also a value that begins with a dash is one.
    shown = (shlex.join(pair if not pair[1].startswith("-") else ("=".join(pair),)) for pair in words)
    lines = [f"fiftytwo submit \\\n  --server {shlex.quote(server)}", *shown]
    return " \\\n  ".join([*lines, "--wait --download out/"])


def _chosen(chosen: Sequence[Any]) -> str:
    """Instructions by number, which is short: with commas, or as JSON where one has parameters."""
    short = [kind.number if isinstance(one, str) and (kind := named(one)) is not None else one for one in chosen]
    if all(isinstance(one, int) for one in short):
        return ",".join(map(str, short))
    return json.dumps(short, ensure_ascii=False)


def _value(value: Any) -> str:
    """What `--set` reads as this value: JSON, or a plain word that is none."""
    if isinstance(value, str) and value.isidentifier() and value not in ("true", "false", "null", "NaN", "Infinity"):
        return value
    return json.dumps(value, ensure_ascii=False)
