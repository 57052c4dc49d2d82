"""Writes the generated pages of `docs/` and the figures of the README; `--check` only says which are stale.

Everything is read off the code (catalogue, settings, errors, first lines of modules) and off `docs/demo.json`, the
record of one run of the demo. Knows no instruction, setting or error by name.
"""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.errors import ENGINE_STATUSES, ServiceError
from app.settings import Settings
from engine.catalogue import CATALOGUE, describe
from engine.errors import EngineError

ROOT = Path(__file__).parents[1]
PACKAGES = ("client", "app", "worker", "engine", "migrations", "benchmarks", "docs")
NOTE = "<!-- Written by docs/generate.py: change the code, then run `make docs`. -->"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar or a line break inside a cell is kept from ending it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def code(values: Iterable[object]) -> str:
    """Names as inline code, with commas; a dash for none."""
    return ", ".join(f"`{value}`" for value in values) or "-"


# Instructions.


def instructions() -> str:
    """The page of the catalogue: a table of all, then a section for each."""
    rows = [
        (one["number"], f"[{one['name']}](#{one['number']}-{one['name']})", one["band"].replace("_", " "), one["does"])
        for one in describe()
    ]
    return "\n\n".join(
        [
            "# Instructions",
            NOTE,
            "What a request may choose, by number or by name. Each is one file under `engine/instructions/`, and what"
            " follows is read off its class. How they combine: [architecture.md](architecture.md#an-instruction).",
            table(("", "name", "band", "does"), rows),
            *(_instruction(one) for one in describe()),
        ]
    )


def _instruction(one: Mapping[str, Any]) -> str:
    text = inspect.getdoc(CATALOGUE[one["number"]]) or ""
    facts = [
        ("band", f"{one['band'].replace('_', ' ')} ({one['tier']})"),
        ("tasks", code(one["tasks"])),
        ("hooks", code(one["hooks"])),
        ("provides", code(one["provides"])),
        *(("needs", f"`{fact}`: {reason}") for fact, reason in one["needs"].items()),
        *(("excludes", f"`{fact}`: {reason}") for fact, reason in one["excludes"].items()),
        ("metric", one["metric"]),
        ("source", one["source"]),
    ]
    parameters = one["parameters"]["properties"]
    return "\n\n".join(
        [
            f"## {one['number']} {one['name']}",
            f"**{one['title']}.** {text}",
            table(("", ""), facts),
            table(("parameter", "kind", "default", "means"), map(_parameter, parameters.items()))
            if parameters
            else "No parameters.",
        ]
    )


def _parameter(item: tuple[str, Mapping[str, Any]]) -> Sequence[object]:
    name, schema = item
    default = json.dumps(schema["default"]) if "default" in schema else "required"
    return f"`{name}`", _kind(schema), f"`{default}`", schema.get("description", "")


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    bounds = "".join(f" {word} {schema[key]}" for key, word in words.items() if key in schema)
    return f"{schema.get('type', 'object')}{bounds}"


# Settings.


def settings() -> str:
    """The page of the settings."""
    rows = [
        (f"`FIFTYTWO_{name.upper()}`", _default(name, field), field.description)
        for name, field in Settings.model_fields.items()
    ]
    return "\n\n".join(
        [
            "# Settings",
            NOTE,
            "Environment variables, read once and checked at the start; `docker-compose.yml` sets a deployment's.",
            table(("variable", "default", "what it is"), rows),
            "The user's commands read `FIFTYTWO_SERVER` and `FIFTYTWO_KEY` unless `--server` and `--key` are given, and"
            " without either use what `fiftytwo login` kept. S3 credentials are the usual `AWS_*` variables.",
        ]
    )


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if value is None or value == "" or isinstance(value, SecretStr):
        return "-"
    if name.endswith("_bytes") and value and value % 1024 == 0:
        unit = min(3, (value.bit_length() - 1) // 10)
        return f"`{value}` ({value / 1024**unit:g} {('bytes', 'KiB', 'MiB', 'GiB')[unit]})"
    return f"`{value}`"


# Problems.


def problems() -> str:
    """The page of the errors: every problem type, and every code a failed job may carry."""
    of_service = [(kind.status, kind.code, kind.title, kind.__doc__) for kind in _below(ServiceError)]
    of_service.append(
        (ServiceError.status, ServiceError.code, ServiceError.title, "A defect of the service; its log has the reason.")
    )
    of_engine = [(status, kind.code, kind.title, kind.__doc__) for kind, status in ENGINE_STATUSES.items()]
    special = [(kind.status, name, kind.title, f"{kind.__doc__} {detail}") for kind, name, detail in _raised()]
    rows = [
        (f"`{_type(name)}`", status, title, _sentence(doc))
        for status, name, title, doc in sorted({*of_service, *of_engine, *special}, key=lambda row: (row[0], row[1]))
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


# The map of the modules.


def modules() -> str:
    """The page that captions every module with the first sentence of its docstring."""
    paths = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    parts = ["# Map of the modules", NOTE, "Each module's first sentence, in its own words."]
    for package in PACKAGES:
        inside = [path for path in paths if path.parts[0] == package]
        rows = [
            (f"[`{path.relative_to(package)}`](../{path})", caption) for path in inside if (caption := _caption(path))
        ]
        if rows:
            parts += [f"## {package}", table(("", ""), rows)]
    return "\n\n".join(parts)


def _caption(path: Path) -> str:
    text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".")


# The figures of the README.


def readme() -> str:
    """The README with the figures of the recorded demo run between its markers."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = "<!-- figures: make docs -->", "<!-- end of figures -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{figures()}\n\n{end}{rest.split(end)[1]}".rstrip("\n")


def figures() -> str:
    """What the receipt of the recorded run says, as a table."""
    return "NOT YET"


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/instructions.md": instructions,
    "docs/settings.md": settings,
    "docs/problems.md": problems,
    "docs/map.md": modules,
    "README.md": readme,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write every page, or with `--check` tell which are stale (exit code 1)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    checking = parser.parse_args(arguments).check
    stale = []
    for name, page in PAGES.items():
        path, text = ROOT / name, page() + "\n"
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not checking:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(("stale, run `make docs`: " if checking else "written: ") + ", ".join(stale))
    return 1 if checking and stale else 0


if __name__ == "__main__":
    sys.exit(main())
