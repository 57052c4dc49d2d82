"""Every route of the API on one page, out of its OpenAPI document. No script, and nothing from any other server.

FastAPI's own page loads its scripts from a network that a hospital's machines do not reach, into the panel's origin.
"""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard.rendering import render
from app.dashboard.routing import PanelRouter
from app.dashboard.visitors import Anybody

router = PanelRouter()
_BOUNDS = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "up to"), ("exclusiveMaximum", "below"))
_SENT = {
    "application/json": "-H 'Content-Type: application/json' -d @request.json",
    "multipart/form-data": "-F file=@FILE",
}
Schema = Mapping[str, Any]


@router.get("/docs")
def page(request: Request, visitor: Anybody) -> Response:
    """The routes by domain, then the objects that they take and give."""
    service: FastAPI = request.app
    document = service.openapi()
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_shown(method.upper(), path, operation))
    objects = [(name, one, _fields(one)) for name, one in sorted(document["components"]["schemas"].items())]
    return render(request, "reference.html", groups=groups, objects=objects)


def _shown(method: str, path: str, operation: Mapping[str, Any]) -> Mapping[str, Any]:
    body: Schema = operation.get("requestBody", {}).get("content", {})
    answers = [
        (status, one["description"], [part for content in one.get("content", {}).values() for part in _types(content)])
        for status, one in sorted(operation["responses"].items())
        if status < "400"
    ]
    parameters = [
        (one["name"], one["in"], _types(one), one.get("required", False), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    bodies = [(media, _types(one)) for media, one in body.items()]
    told = {
        "method": method,
        "path": path,
        "open": "security" not in operation,
        "curl": _curl(method, path, list(body)),
    }
    return {**operation, **told, "parameters": parameters, "bodies": bodies, "answers": answers}


def _curl(method: str, path: str, media: list[str]) -> str:
    sent = _SENT.get(media[0], "--data-binary @FILE") if media else ""
    way = "" if method == "GET" or (method == "POST" and sent) else f"-X {method}"
    parts = ("curl -sS", way, '-H "Authorization: Bearer $FIFTYTWO_KEY"', sent, f"$FIFTYTWO_SERVER{path}")
    return " ".join(filter(None, parts))


def _types(holder: Schema) -> list[tuple[str, str | None]]:
    """What a value may be: words, each with the object that it names."""
    return _kinds(holder.get("schema", {}))


def _kinds(schema: Schema) -> list[tuple[str, str | None]]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return [(name, name)]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return [kind for one in schema[several] for kind in _kinds(one)]
    if "const" in schema or "enum" in schema:
        return [(" | ".join(json.dumps(one) for one in schema.get("enum", [schema.get("const")])), None)]
    if schema.get("type") == "array":
        return [(f"list of {word}", name) for word, name in _kinds(schema.get("items", {}))]
    return [(f"{schema.get('type', 'any')}{_bounds(schema)}", None)]


def _bounds(schema: Schema) -> str:
    if {"minimum", "maximum"} <= set(schema):
        return f", {schema['minimum']:.16g} to {schema['maximum']:.16g}"
    return "".join(f", {words} {schema[name]:.16g}" for name, words in _BOUNDS if name in schema)


def _fields(schema: Schema) -> list[tuple[str, list[tuple[str, str | None]], str, str]]:
    needed = schema.get("required", ())
    return [
        (
            name,
            _kinds(one),
            "needed" if name in needed else json.dumps(one["default"]) if "default" in one else "",
            one.get("description", ""),
        )
        for name, one in schema.get("properties", {}).items()
    ]
