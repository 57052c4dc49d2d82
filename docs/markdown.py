"""The Markdown that the generated pages are made of. Knows nothing of what they say."""

from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
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
