"""Which fields of a receipt docs/api.md does not name: every test that reads one asks."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
_FREE = frozenset({"splits", "parameters", "effects", "recall", "special_token_ids"})  # keys are the job's own words
_BY_CLASS = "classes"


def undocumented(receipt: Mapping[str, Any]) -> list[str]:
    """Paths of fields that the table of the receipt lacks, by section."""
    return sorted({path for path in _paths(receipt, "") if path.split(".")[-1] not in _named(path.split(".")[0])})


def _paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _paths(one, path)
    if not isinstance(value, Mapping):
        return
    name = path.split(".")[-1]
    if name == _BY_CLASS:
        for one in value.values():
            yield from _paths(one, f"{path}.one")
    elif name not in _FREE:
        for key, inner in value.items():
            below = f"{path}.{key}".lstrip(".")
            yield below
            yield from _paths(inner, below)


@cache
def _named(section: str) -> frozenset[str]:
    """The names in the rows of a section; those of the first row stand at the top."""
    table = _PAGE.read_text(encoding="utf-8").partition("## The receipt\n")[2].partition("\n## ")[0]
    at, found = "", set[str]()
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3 or cells[0] in {"section", "---"}:
            continue
        at = cells[0].strip("`") or at
        names = set(re.findall(r"`(\w+)`", f"{cells[0]} {cells[1]}"))
        found |= names if at in (section, "") else set()
    return frozenset(found)
