"""What the tests of refusals share: a service with one of everything, and what it tells of a request."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi.testclient import TestClient

from tests.app.seeds import Seeds

TEXTS = {"task": "text_classification"}
BAD_KEY = {"Idempotency-Key": "no spaces"}
OF_THE_KEY = ("", "wrong_header")
LOCAL = "http://127.0.0.1/"
Told: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """A service with one of everything, and a client with an admin's key."""

    client: TestClient
    seeds: Seeds


def filled(value: Any, seeds: Seeds) -> Any:
    """The value with `<dataset>` and its like replaced by the id of what there is."""
    if isinstance(value, dict):
        return {name: filled(one, seeds) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, seeds) for one in value]
    known = isinstance(value, str) and value.startswith("<")
    return getattr(seeds, value.strip("<>"))[0] if known else value


def told(place: Place, path: str, body: Any, status: int = 422, **options: Any) -> Told:
    """Pointer and code of each fault, sorted; each has words and a next step, and all of them stand in the detail."""
    parts = [filled(part, place.seeds) for part in path.split("/")]
    sent = {"json": filled(body, place.seeds)} if body is not None else {}
    answer = place.client.request(options.pop("method", "POST"), "/".join(parts), **sent, **options)
    assert answer.status_code == status, answer.text
    faults = answer.json()["errors"]
    assert all(fault["detail"] and fault["remedy"] for fault in faults), faults
    assert not any("mend the value" in fault["remedy"] for fault in faults), faults
    assert all(fault["detail"] in answer.json()["detail"] for fault in faults)
    return sorted((fault["pointer"], fault["code"]) for fault in faults)
