"""The OpenAPI document: what FastAPI finds, and what every route shares: the key, and the problems it may answer with.

Knows no route but the few that need no key.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.schemas import PROBLEM, Problem

OPEN_PATHS = {"/", "/healthz", "/readyz"}
METHODS = {"get", "post", "put", "patch", "delete"}
DESCRIPTION = "Training as a service with proof. Errors are RFC 9457 problems that list every fault with its remedy."
SHARED = {
    400: "The request cannot be read.",
    401: "A valid key is needed.",
    403: "The key may not do this.",
    404: "There is nothing here.",
    408: "The body stopped short.",
    409: "The present state does not allow this.",
    413: "The request is larger than this server takes.",
    415: "The body has another content type than is wanted.",
    422: "The request has faults; every one is listed.",
    429: "Too many requests of this key; see Retry-After.",
    500: "The service failed.",
    503: "A part of the service is down; see Retry-After.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in found["paths"].items():
            for method, operation in operations.items():
                if method in METHODS:
                    _share(operation, is_open=path in OPEN_PATHS)
        app.openapi_schema = found
    return app.openapi_schema


def _share(operation: dict[str, Any], *, is_open: bool) -> None:
    answers = operation["responses"]
    for status, description in SHARED.items():
        # FastAPI writes a 422 of its own shape into every route that takes anything.
        if str(status) not in answers or status == 422:
            answers[str(status)] = {"description": description, **PROBLEM}
    if not is_open:
        operation["security"] = [{"key": []}]
