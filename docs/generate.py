"""Writes the generated pages of `docs/` and the figures of the README; `--check` only says which are stale.

Everything is read off the code (catalogue, settings, errors, first lines of modules) and off `docs/demo.json`, the
record of one run of the demo. Knows no instruction, setting or error by name.
"""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings
from docs.commands import commands
from docs.figures import figures
from docs.markdown import NOTE, ROOT, code, table
from docs.problems import problems
from engine.catalogue import CATALOGUE, describe

PACKAGES = ("client", "app", "worker", "engine", "migrations", "benchmarks", "docs")
# Higher numbers are those of contributors.
OF_THE_ARTICLE = 52


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
        ("kinds of job", code(one["kinds"])),
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


# What the README takes from elsewhere.


def readme() -> str:
    """The README with what is read off the catalogue and the recorded demo run between its markers."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    exist = sum(number <= OF_THE_ARTICLE for number in CATALOGUE)
    text = _filled(text, "count", f"{OF_THE_ARTICLE} instructions, of which {exist} exist so far")
    return _filled(text, "figures", f"\n\n{figures()}\n\n").rstrip("\n")


def _filled(text: str, name: str, content: str) -> str:
    """The text with `content` between the markers of this name."""
    begin, end = f"<!-- {name}: make docs -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}{content}{end}{rest.split(end)[1]}"


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/instructions.md": instructions,
    "docs/settings.md": settings,
    "docs/problems.md": problems,
    "docs/commands.md": commands,
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
