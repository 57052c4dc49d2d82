"""Objects of the API as tables for people. Knows their JSON and rich; never asks the server for anything."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.artifact import Prediction
from client.detector import Screening
from client.http import TERMINAL, Json
from client.progress import drawn_of, duration

_MARKS = {"passed": "[green]passed[/]", "missed": "[red]missed[/]"}


def rows(console: Console, objects: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A plain table, one object a row; lists are joined, what is missing stays blank."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        # An id or a name that is broken over two lines cannot be copied.
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=place < 2)
    for one in objects:
        table.add_row(*(_cell(one.get(column)) for column in columns))
    console.print(table)


def instruction(console: Console, one: Json) -> None:
    """An instruction: what it is, what it does, and each of its parameters."""
    rows(console, [one], ("number", "name", "band", "tier", "tasks", "title"))
    if one.get("does"):
        console.print(f"\n{one['does']}\n", markup=False, soft_wrap=True)
    fields = (one.get("parameters", {}).get("properties") or {}).items()
    told = [
        {
            "parameter": name,
            "kind": _kind(field),
            "default": json.dumps(field["default"]) if "default" in field else "required",
            "means": field.get("description"),
        }
        for name, field in fields
    ]
    if told:
        rows(console, told, ("parameter", "kind", "default", "means"))


def _kind(schema: Json) -> str:
    """What a parameter takes, as its JSON Schema has it."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return " or ".join(map(str, values)) or str(schema.get("type", "object"))


def pairs(console: Console, found: Iterable[tuple[str, Any]]) -> None:
    """What is known of one thing, a line each; what is missing is left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in found:
        if value not in (None, "", []):
            table.add_row(name, _cell(value))
    console.print(table)


def job(console: Console, content: Json) -> None:
    """A job: where it stands, what it does with what, and the command that comes next."""
    ended = content["state"] in TERMINAL
    drawn = drawn_of(content)
    files = sorted({str(one.get("kind")) for one in content.get("artifacts") or []})
    steps = [f"{one['number']} {one['name']}" for one in content.get("plan") or []]
    following = f"fiftytwo watch {content['id']}"
    if ended:
        following = f"fiftytwo download {content['id']}" if "model" in files else ""
    pairs(
        console,
        [
            ("job", content["id"]),
            ("name", content.get("name")),
            ("state", ", ".join(filter(None, (drawn["description"], "" if ended else drawn["steps"])))),
            *((name.replace("_", " "), content.get(name)) for name in ("kind", "task", "model")),
            ("data set", content.get("dataset") if isinstance(content.get("dataset"), str) else None),
            ("plan", steps),
            *((name, content.get(f"{name}_at")) for name in ("created", "started", "finished")),
            ("files", files),
            ("next", following),
        ],
    )


def dry_run(console: Console, answer: Json, asked: Sequence[Any]) -> None:
    """The plan in the order in which it acts, with the parameters that were asked for, and what it will take."""
    given = {str(one.get("name") or one.get("number")): one for one in asked if isinstance(one, Mapping)}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("order", "number", "name", "parameters", "what it does"):
        justify: Literal["left", "right"] = "right" if column in ("order", "number") else "left"
        table.add_column(column, no_wrap=column == "name", overflow="fold", justify=justify)
    for order, step in enumerate(answer.get("plan") or [], 1):
        own = given.get(str(step["name"])) or given.get(str(step["number"])) or {}
        told = [f"{name} {value}" for name, value in (step.get("parameters") or {}).items() if name in own]
        row = (str(order), str(step["number"]), str(step["name"]), ", ".join(told) or "defaults", str(step["does"]))
        table.add_row(*map(escape, row))
    console.print(table)
    console.print()
    estimate = answer.get("estimate") or {}
    privacy = estimate.get("privacy") or {}
    seconds, memory, file = (estimate.get(name) for name in ("seconds", "memory_bytes", "file_bytes"))
    pairs(
        console,
        [
            ("time", None if seconds is None else f"about {duration(seconds)}"),
            ("steps", None if estimate.get("total_steps") is None else f"{estimate['total_steps']:,}"),
            ("memory", None if memory is None else f"about {size(memory)}"),
            ("model file", None if file is None else f"about {size(file)}"),
            ("privacy", f"epsilon {privacy['epsilon']:.4g} at delta {privacy['delta']:.4g}" if privacy else None),
            ("rests on", estimate.get("basis")),
        ],
    )


def size(count: float) -> str:
    """A number of bytes in the largest decimal unit that it fills."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return escape(", ".join(str(one) for one in value))
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def predictions(console: Console, names: Sequence[str], found: Sequence[Prediction]) -> None:
    """Every input with its label and the scores of all labels, the best first."""
    for name, one in zip(names, found, strict=True):
        scores = sorted(one.scores.items(), key=lambda pair: -pair[1])
        console.print(f"{_short(name)}: {one.label}", markup=False, highlight=False, soft_wrap=True)
        line = "  ".join(f"{label} {score:.4f}" for label, score in scores)
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def detections(console: Console, names: Sequence[str], found: Screening) -> None:
    """Every input with its verdict, and what the verdicts are worth."""
    for name, one in zip(names, found.detections, strict=True):
        verdict = "flagged" if one.flagged else "passed"
        told = f"{_short(name)}: {verdict} (p {one.p_value:.4f}), {one.prediction} {one.confidence:.4f}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
        line = "  ".join(f"{signal} p {value:.4f}" for signal, value in one.signals.items())
        hidden = "  hidden or look-alike characters" if one.canonical_changed else ""
        console.print(f"  {line}{hidden}", markup=False, highlight=False, soft_wrap=True)
    summary = found.summary
    told = f"{summary['flagged']} of {summary['n']} flagged at {summary['target_fpr']:.3g}; {summary['note']}"
    console.print(told, markup=False, highlight=False, soft_wrap=True)
    if summary["shift_warning"]:
        console.print(f"warning: {summary['shift_warning']}", markup=False, style="yellow", soft_wrap=True)


def _short(name: str) -> str:
    """Beginning and end of a long text or path."""
    return name if len(name) <= 80 else f"{name[:52]} ... {name[-23:]}"


def receipt(console: Console, content: Json) -> None:
    """A receipt: what ran, the figures of the exported file beside their references, the limits, the warnings."""
    table = Table(title=escape(f"Receipt of {content.get('job') or 'a run'}"), title_justify="left")
    table.add_column("figure")
    for column in ("reference", "exported file", "difference"):
        table.add_column(column, justify="right")
    for row in figures(content):
        table.add_row(*map(escape, row))
    console.print(table)
    plan = ", ".join(f"{one['number']} {one['name']}" for one in content.get("plan") or [])
    console.print(f"plan: {plan or 'no instruction was chosen'}", markup=False)
    checks = (content.get("limits") or {}).get("checks") or []
    for check in checks:
        told = f"limit {check['name']}: {_number(check['limit'])}, measured {_number(check['measured'])}: "
        outcome = str(check["outcome"])
        console.print(escape(told) + _MARKS.get(outcome, escape(outcome)))
    for warning in content.get("warnings") or []:
        console.print(f"warning: {warning}", markup=False, style="yellow")


def figures(content: Json) -> list[tuple[str, str, str, str]]:
    """The receipt's figures as (name, reference, exported, difference); what was not measured is left out."""
    found: list[tuple[str, str, str, str]] = []
    quality, size, latency = (content.get(part) or {} for part in ("quality", "size", "latency"))
    reference, exported = quality.get("reference") or {}, quality.get("exported") or {}
    if exported.get("value") is not None:
        loss = (quality.get("loss") or {}).get("value")
        change = "" if loss is None else f"{-loss:+.4f}"
        found.append((str(quality.get("metric")), _score(reference), _score(exported), change))
    macro = quality.get("macro_f1") or {}
    if macro.get("exported") is not None:
        found.append(("macro F1", _number(macro.get("reference")), _number(macro["exported"]), ""))
    if quality.get("agreement") is not None:
        found.append(("same answer as the reference", "", f"{quality['agreement']:.2%}", ""))
    if size.get("exported_bytes") is not None:
        ratio = f"x {size['ratio']:.3f}" if size.get("ratio") is not None else ""
        found.append(("bytes", _number(size.get("reference_bytes")), _number(size["exported_bytes"]), ratio))
    parameters = size.get("parameters") or {}
    if parameters.get("exported") is not None:
        found.append(("parameters", _number(parameters.get("reference")), _number(parameters["exported"]), ""))
    if latency.get("exported_p50_ms") is not None:
        # Not the quotient of the two medians beside it: each round's two times are compared, whatever slowed both down.
        ratio = f"x {latency['ratio']:.3f} (median of pairs)" if latency.get("ratio") is not None else ""
        name = f"latency ms (against {latency.get('baseline')})"
        found.append((name, _number(latency.get("reference_p50_ms")), _number(latency["exported_p50_ms"]), ratio))
    privacy = content.get("privacy") or {}
    if privacy.get("epsilon") is not None:
        found.append((f"epsilon at delta {_number(privacy.get('delta'))}", "", _number(privacy["epsilon"]), ""))
    return found


def _score(part: Mapping[str, Any]) -> str:
    if part.get("value") is None:
        return ""
    interval = part.get("ci95")
    spread = f" ({interval[0]:.3f} to {interval[1]:.3f}, n {part.get('n')})" if interval else ""
    return f"{part['value']:.4f}{spread}"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000) else f"{value:.4g}"
