"""The page of the errors, read off the exceptions and off the places that raise them. Knows none by name."""

import ast
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from app.errors import ENGINE_STATUSES, ServiceError
from app.protocol import HEAD_SECONDS, HEAD_STALLED, HEAD_TOO_LARGE, MOST_HEAD_BYTES
from docs.markdown import NOTE, ROOT, table
from engine.errors import EngineError


def problems() -> str:
    """The page of the errors: every problem type, and every code a failed job may carry."""
    of_service = [(kind.status, kind.code, kind.title, kind.__doc__) for kind in _below(ServiceError)]
    of_service.append(
        (ServiceError.status, ServiceError.code, ServiceError.title, "A defect of the service; its log has the reason.")
    )
    head = f"The first line and the headers have more than {MOST_HEAD_BYTES:,} bytes together; the connection ends."
    of_service.append((HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value, *HEAD_TOO_LARGE, head))
    late = f"The first line and the headers did not come within {HEAD_SECONDS:g} seconds; the connection ends."
    of_service.append((HTTPStatus.REQUEST_TIMEOUT.value, *HEAD_STALLED, late))
    of_engine = [(status, kind.code, kind.title, kind.__doc__) for kind, status in ENGINE_STATUSES.items()]
    special = [(kind.status, name, kind.title, f"{kind.__doc__} {detail}") for kind, name, detail in _raised()]
    rows = [
        (f"`{_type(name)}`", status, title, _sentence(doc))
        for status, name, title, doc in sorted(
            {*of_service, *of_engine, *special}, key=lambda row: (*row[:2], str(row[3]))
        )
    ]
    jobs = [(f"`{kind.code}`", kind.title, _sentence(kind.__doc__)) for kind in _below(EngineError)]
    return "\n\n".join(
        [
            "# Problems",
            NOTE,
            "Every refusal is `application/problem+json` (RFC 9457). `type` is one of the first table, `instance` the"
            " id of the request; `errors` lists every fault found: a JSON Pointer into the body, a code, what is wrong"
            " and what to do. `error` repeats it in the shape that OpenAI's clients read. Statuses 429 and 503 carry"
            " `Retry-After`.",
            table(("type", "status", "title", "when"), rows),
            "## A failed job",
            "The job's `error` is a problem too; its `code` is one of these, or `worker_lost`: its process died or its"
            " worker was not heard of, more often than `FIFTYTWO_MAX_LAPSES` allows.",
            table(("code", "title", "when"), dict.fromkeys(jobs)),
        ]
    )


def _below(base: type[Any]) -> Iterator[type[Any]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _below(kind)


def _raised() -> Iterator[tuple[type[ServiceError], str, str]]:
    """Every `Kind(detail, code="...")` in the app whose code is not that of its class."""
    kinds: dict[str, type[ServiceError]] = {kind.__name__: kind for kind in _below(ServiceError)}
    for path in sorted((ROOT / "app").rglob("*.py")):
        names: dict[str, ast.expr] = {}
        for node in _in_order(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = node.value
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds):
                continue
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    yield kinds[node.func.id], str(keyword.value.value), _said(node.args[0], names)


def _in_order(tree: ast.AST) -> list[ast.AST]:
    return sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0))


def _said(detail: ast.expr, names: Mapping[str, ast.expr]) -> str:
    """The words of an error's detail; a value inside an f-string is shown as three dots."""
    if isinstance(detail, ast.Name):
        detail = names.get(detail.id, detail)
    parts = detail.values if isinstance(detail, ast.JoinedStr) else [detail]
    said = "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)
    return f"Here: {said}." if said.strip(".") else ""


def _type(name: str) -> str:
    return f"/problems/{name.replace('_', '-')}"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())
