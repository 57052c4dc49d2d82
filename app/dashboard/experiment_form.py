"""The form of an experiment: what was typed, the request that it comes to, and which field each fault stands beside.

Knows neither HTML nor the rules of an experiment: `/v1/experiments` checks what comes out of here.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.jobs.requests import JobCreate
from engine.errors import Fault

SLOTS = 8
"""So many treatments have room in the form."""
FIRST_CHANGES = '{\n  "instructions": []\n}'
_NOT_OF_THE_ARMS = ("kind", "answers", "auto_start", "webhook", "name", "metadata")
_HUMAN = "/human/items"
_SINGLE = {"/name": "name", "/seeds": "seeds", "/human": "items", "/margin": "margin", "/baseline": "baseline"}


@dataclass(frozen=True)
class Treated:
    """A treatment as it was typed."""

    name: str = ""
    changes: str = ""

    @property
    def blank(self) -> bool:
        """Whether nothing was typed."""
        return not self.name.strip() and self.changes.strip() in ("", FIRST_CHANGES)


@dataclass(frozen=True)
class Written:
    """The whole form as it was typed."""

    name: str = ""
    baseline: str = ""
    treatments: tuple[Treated, ...] = (Treated(changes=FIRST_CHANGES),)
    seeds: str = "1, 2, 3"
    judged: bool = True
    items: str = "40"
    margin: str = "0.01"


def body_of(written: Written) -> tuple[dict[str, Any], list[Fault]]:
    """The request, and what cannot be read at all; a treatment of which nothing was typed is left out."""
    faults: list[Fault] = []
    kept, treatments = _kept(written), []
    if not kept:
        remedy = "give it a name, and write what it changes"
        faults.append(Fault("/treatments", "missing", "there is no treatment yet", remedy))
    for number, slot in enumerate(kept):
        one = written.treatments[slot]
        changes = _object(one.changes or "{}", f"/treatments/{number}/changes", faults)
        treatments.append({"name": one.name.strip(), "changes": changes})
    body = {
        "name": written.name.strip() or None,
        "baseline": _object(written.baseline, "/baseline", faults),
        "treatments": treatments,
        "seeds": [_whole(one) for one in re.split(r"[,\s]+", written.seeds.strip()) if one],
        "human": {"items": _whole(written.items.strip())} if written.judged else None,
        "margin": _real(written.margin.strip()),
    }
    return body, faults


def beside(written: Written, faults: Iterable[Fault]) -> dict[str, list[Fault]]:
    """The faults by the field that they stand beside, "" for those of none; pointers lead into the field's own text."""
    kept, found = _kept(written), dict[str, list[Fault]]()
    for fault in faults:
        field, rest = _field(fault.pointer, kept)
        found.setdefault(field, []).append(Fault(rest, fault.code, fault.detail, fault.remedy))
    return found


def without_echoes(unread: Sequence[Fault], faults: Sequence[Fault]) -> list[Fault]:
    """Both together, less what is only said because a text could not be read."""
    places = tuple(fault.pointer for fault in unread)
    return [*unread, *(fault for fault in faults if not fault.pointer.startswith(places or ("\0",)))]


def baseline_of(spec: Mapping[str, Any]) -> str:
    """The spec of a job as the text of a baseline: what it chose, without defaults and without its seed."""
    fields = {name: value for name, value in spec.items() if name not in _NOT_OF_THE_ARMS}
    fields["training"] = {name: value for name, value in (fields.get("training") or {}).items() if name != "seed"}
    try:
        job = JobCreate.model_validate(fields)
    except ValidationError:
        return json.dumps(fields, indent=2)
    chosen = job.model_dump(mode="json", exclude_defaults=True)
    chosen["instructions"] = [{"name": one.name, **_own(one)} for one in job.instructions]
    return json.dumps({name: value for name, value in chosen.items() if value not in ([], {})}, indent=2)


def _own(instruction: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = instruction.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in chosen.items() if name not in ("name", "number")}


def _kept(written: Written) -> list[int]:
    return [slot for slot, one in enumerate(written.treatments) if not one.blank]


def _field(pointer: str, kept: Sequence[int]) -> tuple[str, str]:
    for start, field in _SINGLE.items():
        if pointer == start or pointer.startswith(f"{start}/"):
            return field, "" if pointer.startswith(_HUMAN) else pointer.removeprefix(start)
    if pointer == "/treatments":
        return "treatment-0-name", ""
    found = re.match(r"/treatments/(\d+)(?:/(name|changes))?(.*)", pointer)
    if found is not None and int(found[1]) < len(kept):
        return f"treatment-{kept[int(found[1])]}-{found[2] or 'changes'}", found[3]
    return "", pointer


def _object(text: str, pointer: str, faults: list[Fault]) -> Any:
    """The JSON object, or None with a fault."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}" if isinstance(error, ValueError) else "depth"
        remedy = "write one JSON object, names in double quotes" if text.strip() else "choose a job, or write its spec"
        faults.append(Fault(pointer, "json_invalid", f"this is no JSON: {where}" if text.strip() else "empty", remedy))
        return None
    if not isinstance(value, dict):
        faults.append(Fault(pointer, "json_invalid", "this is no JSON object", "put it in braces: { … }"))
        return None
    return value


def _whole(text: str) -> Any:
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text


def _real(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
