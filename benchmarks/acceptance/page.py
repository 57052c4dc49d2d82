"""Writes docs/acceptance.md: a section a step, each with what was sent, what came back and whether it holds.

A section is as its last walk left it, with that day, commit and machine. Knows no server.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.acceptance.step import Finding, Step, Walked
from docs.markdown import table

HELD, MISSED, ABSENT = "Held", "Missed", "Not walked"
_HEAD = """# Acceptance: a walk over HTTP

<!-- Written by `python -m benchmarks.acceptance`; do not edit. -->

What the project set out to show, line by line, as far as it can be walked over HTTP: a real service (API, worker,
broker) in a folder of its own, the client package, and known data sets such as ag_news and sst2. Under each line stands
what was sent, what came back, and whether it holds. A figure is one run of one seed on the machine that its section
names."""
_LINE = re.compile(rf"(?m)^### ({HELD}|{MISSED}|{ABSENT}): (.*)$")
_WIDE = 110


def page(sections: Mapping[str, str], steps: Sequence[Step]) -> str:
    """The page: a table of all lines, then the sections in the order of the steps."""
    known = [
        (step, sections.get(step.name) or section(Walked(step, absent="it was not walked yet"), "")) for step in steps
    ]
    lines = [
        (f"[{step.name}](#{_anchor(step)})", asks, held) for step, text in known for held, asks in _LINE.findall(text)
    ]
    told = table(("step", "line", "outcome"), lines)
    return "\n\n".join([_HEAD, told, *(text.rstrip() for _, text in known)]) + "\n"


def sections_of(written: str) -> dict[str, str]:
    """The sections of a page by the name of their step."""
    parts = re.split(r"(?m)^(?=## )", written)[1:]
    return {part[3:].split(":", 1)[0]: part.rstrip() + "\n" for part in parts}


def section(walked: Walked, occasion: str) -> str:
    """A step's section; `occasion`: day, commit and machine."""
    step = walked.step
    parts = [f"## {step.name}: {step.title}", f"**To show:** {step.asks}."]
    if walked.absent:
        parts.append(f"### {ABSENT}: {walked.absent}")
    parts += [_finding(one) for one in walked.findings]
    if walked.findings:
        total = sum(one.seconds for one in walked.findings)
        parts.append(f"{total:,.0f} seconds, {occasion}; `python -m benchmarks.acceptance --only {step.name}`.")
    return "\n\n".join(parts) + "\n"


def _finding(one: Finding) -> str:
    parts = [f"### {HELD if one.held else MISSED}: {one.asks}"]
    if one.sent is not None:
        parts.append(f"```json\n{short_json(one.sent)}\n```")
    parts.append(table(("what came back", ""), [(name, shown(value)) for name, value in one.came.items()]))
    return "\n\n".join(parts)


def short_json(value: Mapping[str, Any]) -> str:
    """A body on one line, or a field a line where it is long."""
    whole = json.dumps(value, ensure_ascii=False)
    if len(whole) <= _WIDE:
        return whole
    fields = (f"  {json.dumps(name)}: {json.dumps(one, ensure_ascii=False)}" for name, one in value.items())
    return "{\n" + ",\n".join(fields) + "\n}"


def shown(value: object) -> str:
    """A figure in a cell: numbers with four digits, everything else as JSON has it, texts as they are."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(one) for one in value) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {shown(one)}" for name, one in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _anchor(step: Step) -> str:
    """As GitHub makes it of the heading."""
    return re.sub(r"[^\w\- ]", "", f"{step.name}: {step.title}".lower()).replace(" ", "-")
