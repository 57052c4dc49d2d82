"""The body of `POST /v1/jobs` from a file and the flags of `fiftytwo submit`, and its check before the data are sent.

Knows no field beyond those flags.
"""

import argparse
import json
from pathlib import Path

from client.errors import BadUsage, Refused
from client.http import Client, Json


def spec_of(words: argparse.Namespace) -> Json:
    """The job spec: the file if one is given, then the flags over it."""
    spec: Json = {"kind": "train"}
    if words.spec:
        try:
            spec |= json.loads(Path(words.spec).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError) as error:
            raise BadUsage(f"cannot read the job spec {words.spec}: {error}", remedy="give a JSON object") from error
    if words.data and words.data.startswith("ds_"):
        spec["dataset"] = words.data
    given = {"task": words.task, "instructions": words.instructions, "model": words.model, "name": words.name}
    spec |= {name: value for name, value in given.items() if value is not None}
    for path, value in words.set:
        place = spec
        *parents, last = path.split(".")
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise BadUsage(f"--set {path}: {name} is no object in this spec", remedy="name a field of an object")
        place[last] = value
    if not (words.data or spec.get("dataset")) and spec["kind"] == "train":
        raise BadUsage("no data given", remedy="--data FILE, or --data ds_... of an uploaded data set")
    return spec


def check_all_but_data(client: Client, spec: Json) -> None:
    """Let the server check a job whose data are not there yet, so that a wrong one uploads nothing.

    Raises:
        Refused: with every fault but the one that there are no data.
    """
    try:
        client.post("/v1/jobs", {name: value for name, value in spec.items() if name != "dataset"}, dry_run="true")
    except Refused as error:
        told = error.problem.get("errors") or []
        others = [fault for fault in told if fault.get("pointer") != "/dataset"]
        if others or not told:
            detail = "; ".join(str(fault.get("detail")) for fault in others) or error.detail
            raise Refused(error.status, {**error.problem, "detail": detail, "errors": others}) from error
