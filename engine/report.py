"""report.html: one self-contained page that shows what a receipt tells. Measures nothing and decides nothing.

Everything on it is in the receipt or in the history of the run; there is no script, so it prints as it looks.
"""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from engine import plots
from engine.calibration import probabilities
from engine.evaluate import Labels
from engine.plots import Line
from engine.ports import Answers

_BINS = 10
# Which series share a chart, under which title.
_CURVES = (
    ("Loss", ("train_loss", "valid_loss")),
    ("Score on the validation rows", ("valid_score",)),
    ("Learning rate", ("learning_rate",)),
    ("Gradient norm", ("gradient_norm",)),
    ("Examples a second", ("examples_per_second",)),
    ("Epsilon spent", ("epsilon",)),
)
_TIERS = ("deployment", "safety", "efficiency", "foundation")  # the pyramid, from its top

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --rule: #d0d7de; --paper: #fff; --soft: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --rule: #3d444d; --paper: #0d1117; --soft: #151b23 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--rule) }
p.about { color: var(--dim); margin: .2rem 0 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td, th { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top }
th { color: var(--dim); font-weight: 600 }
.big { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem }
.big div { background: var(--soft); padding: .7rem .9rem; border-radius: .4rem }
.big b { display: block; font-size: 1.35rem }
.big span { color: var(--dim) }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem }
figure { margin: 0; break-inside: avoid }
figcaption { font-weight: 600; margin-bottom: .2rem }
svg { width: 100%; height: auto }
svg text { font: 11px system-ui, sans-serif; fill: currentColor }
svg .grid { stroke: var(--rule) }
svg .guide { stroke: var(--dim); stroke-dasharray: 4 4 }
.band { box-sizing: border-box; margin: .35rem auto; padding: .5rem .8rem; background: var(--soft);
  border-radius: .3rem }
.band h3 { margin: 0; font-size: .85rem; color: var(--dim) }
.passed { color: #1a7f37 }
.missed, .undecided { color: #cf222e }
code { word-break: break-all }
@media print { body { max-width: none; padding: 0 } h2 { break-after: avoid } }
"""


def report(
    receipt: Mapping[str, Any],
    curves: Mapping[str, Any],
    rungs: Sequence[Mapping[str, Any]],
    tiers: Mapping[int, str],
    classes: Sequence[str] = (),
    truth: Labels | None = None,
    answers: Answers | None = None,
) -> bytes:
    """The page as UTF-8.

    Args:
        receipt: the receipt as it is delivered.
        curves: the kept history, as `engine.curves` has it.
        rungs: the compression ladder, as `engine.ladder` has it.
        tiers: the level of the pyramid of each chosen instruction, by number.
        classes, truth, answers: names, (n,) and logits (n, classes) of the exported file, for tasks with classes.
    """
    title = f"Report of {receipt['job'] or 'a run'}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="about">{html.escape(_about(receipt))}</p>',
        _summary(receipt),
        _limits(receipt),
        _section("Learning curves", _charts(_drawn(curves))),
        _section("The plan, as a pyramid", _pyramid(receipt["plan"], tiers)),
        _section("The compression ladder", _ladder(rungs, receipt)),
    ]
    if classes and truth is not None and answers is not None:
        parts.append(_section("Calibration and confusion", _charts(_judged(classes, truth, answers))))
    parts += [_section("Warnings", _list(receipt["warnings"])), _section("Files", _files(receipt))]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    page = (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )
    return page.encode()


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>" if body else ""


def _about(receipt: Mapping[str, Any]) -> str:
    environment = receipt["environment"]
    base = receipt["inputs"]["base_model"]["name"]
    rows = sum(one["rows"] for one in receipt["inputs"]["datasets"])
    return (
        f"{base} on {rows:,} rows, {receipt['created_at']}, seed {environment['seed']}, "
        f"torch {environment['torch']} on {environment['device']}. "
        "Every figure of the exported file was taken by a fresh process."
    )


def _summary(receipt: Mapping[str, Any]) -> str:
    quality, size, latency = receipt["quality"], receipt["size"], receipt["latency"]
    low, high = quality["exported"]["ci95"]
    told = [(f"{quality['exported']['value']:.4g}", f"{quality['metric']}, 95 % {low:.4g} to {high:.4g}")]
    told.append((f"{quality['reference']['value']:.4g}", f"{quality['metric']} of the reference"))
    if size:
        told.append((f"{size['ratio']:.3f}", f"of the bytes: {size['exported_bytes']:,}"))
    if latency:
        told.append((f"{latency['ratio']:.3f}", f"of the latency, median of pairs; {latency['exported_p50_ms']} ms"))
    if quality.get("agreement") is not None:
        told.append((f"{quality['agreement']:.4g}", "of the rows answered as by the reference"))
    privacy = receipt.get("privacy") or {}
    if privacy.get("epsilon") is not None:
        told.append((f"{privacy['epsilon']:g}", f"epsilon at delta {privacy['delta']:g}"))
    if privacy.get("audited_lower_bound") is not None:
        told.append((f"{privacy['audited_lower_bound']:g}", "epsilon at least, by canaries"))
    if receipt.get("robustness"):
        told.append((f"{receipt['robustness']['robust']:.4g}", "under attack"))
    cells = "".join(f"<div><b>{html.escape(value)}</b><span>{html.escape(text)}</span></div>" for value, text in told)
    return f'<div class="big">{cells}</div>'


def _limits(receipt: Mapping[str, Any]) -> str:
    rows = [
        (one["name"], str(one["limit"]), str(one["measured"]), f'<b class="{one["outcome"]}">{one["outcome"]}</b>')
        for one in receipt["limits"]["checks"]
    ]
    return _section("Limits", _table(("limit", "asked", "measured", "outcome"), rows, plain=3)) if rows else ""


def _drawn(curves: Mapping[str, Any]) -> Iterator[str]:
    for title, names in _CURVES:
        found = [Line(name, [(x, y) for x, y in curves[name]["points"]]) for name in names if name in curves]
        if found:
            yield plots.lines(title, found, "step")


def _charts(drawn: Iterator[str]) -> str:
    figures = "".join(drawn)
    return f'<div class="charts">{figures}</div>' if figures else ""


def _pyramid(plan: Sequence[Mapping[str, Any]], tiers: Mapping[int, str]) -> str:
    """The chosen instructions by level, the top level narrowest, each with its parameters and measured effects."""
    levels = []
    for level, tier in enumerate(_TIERS):
        rows = [
            (f"{step['number']} {step['name']}", _pairs(step["parameters"]), _pairs(step["effects"]))
            for step in plan
            if tiers.get(step["number"]) == tier
        ]
        if rows:
            table = _table(("instruction", "parameters", "measured effects"), rows)
            levels.append(f'<div class="band" style="width:{82 + 6 * level}%"><h3>{tier}</h3>{table}</div>')
    return "".join(levels)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {json.dumps(value)}"
        for name, value in values.items()
    )


def _ladder(rungs: Sequence[Mapping[str, Any]], receipt: Mapping[str, Any]) -> str:
    """Each state of the model, then the file itself."""
    size, latency, quality = receipt["size"], receipt["latency"], receipt["quality"]
    rows = [
        (one["name"], f"{one['score']:.4g}", f"{one['bytes']:,}", f"{one['latency_ms']:.3g} ms, PyTorch")
        for one in rungs
    ]
    steps = [(one["name"], one["bytes"] / 1e6) for one in rungs]
    if size and latency:
        exported = f"{latency['exported_p50_ms']:.3g} ms, the file"
        rows.append(("exported file", f"{quality['exported']['value']:.4g}", f"{size['exported_bytes']:,}", exported))
        steps.append(("exported file", size["exported_bytes"] / 1e6))
    table = _table(("state", quality["metric"], "weight bytes", "latency, one row"), rows)
    return table + _charts(iter([plots.bars("Size", steps, " MB")])) if rows else ""


def _judged(classes: Sequence[str], truth: Labels, answers: Answers) -> Iterator[str]:
    scores = probabilities(answers)
    winners, sure = scores.argmax(axis=1), scores.max(axis=1)
    right = winners == truth
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    points = [(float(sure[bins == one].mean()), float(right[bins == one].mean())) for one in np.unique(bins)]
    yield plots.lines(
        "Calibration: how often an answer is right, by its score", [Line("", points)], "score", diagonal=True
    )
    if len(classes) <= 30:
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        np.add.at(counts, (truth, winners), 1)
        yield plots.matrix("Confusion", classes, counts.tolist())


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _files(receipt: Mapping[str, Any]) -> str:
    rows = [(one["path"], f"{one['size_bytes']:,}", f"<code>{one['sha256']}</code>") for one in receipt["files"]]
    return _table(("file", "bytes", "sha256"), rows, plain=2)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], plain: int | None = None) -> str:
    """A table of texts; the column `plain` is HTML already."""
    cells = "".join(f"<th>{html.escape(one)}</th>" for one in head)
    lines = "".join(
        "<tr>"
        + "".join(f"<td>{one if column == plain else html.escape(one)}</td>" for column, one in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
