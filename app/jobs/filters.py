"""How a list of jobs is filtered by metadata: the parameter as the API's document tells it, and its reading."""

import re

from starlette.requests import Request

from app.errors import Invalid
from engine.errors import Fault

METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
METADATA_FILTER = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "style": "deepObject",
            "explode": True,
            "description": "`metadata[team]=mail`: only jobs with this pair.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}


def metadata_filter(request: Request) -> dict[str, str]:
    """The pairs that `metadata[key]=value` asks for; Invalid where the key cannot be read."""
    pairs: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name.startswith("metadata"):
            match = METADATA.fullmatch(name)
            if match is None:
                detail = f"{name[:80]!r} is no filter"
                raise Invalid(detail, faults=[Fault("", "unknown_filter", detail, "write metadata[key]=value")])
            pairs[match[1]] = value
    return pairs
