"""The card and the report say what the receipt says, escape what they show, and stand alone."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from engine import plots
from engine.card import card
from engine.curves import MOST_POINTS, keep
from engine.plots import Line
from engine.releases import audited_section
from engine.report import report

HOSTILE = '<script>alert("|x|")</script>'
RECEIPT: dict[str, Any] = {
    "job": "job_1",
    "created_at": "2026-11-26T00:00:00Z",
    "inputs": {"datasets": [{"id": "ds_1", "rows": 1234}], "base_model": {"name": "minilm-l6", "sha256": "ab"}},
    "plan": [
        {"number": 1, "name": "text_normalization", "parameters": {"form": "NFC"}, "effects": {"rows_changed": 0.125}},
        {"number": 47, "name": "post_training_quantization", "parameters": {}, "effects": {}},
    ],
    "environment": {"seed": 7, "torch": "2", "device": "x86_64"},
    "quality": {
        "metric": "accuracy",
        "reference": {"value": 0.95, "n": 400, "ci95": [0.92, 0.97]},
        "exported": {"value": 0.94, "n": 400, "ci95": [0.91, 0.96]},
        "agreement": 0.99,
        "macro_f1": {"reference": 0.9, "exported": 0.89},
        "recall": {"ham": 0.99, HOSTILE: None},
    },
    "size": {"ratio": 0.25, "exported_bytes": 22_000_000, "reference_bytes": 88_000_000},
    "latency": {
        "ratio": 0.31,
        "exported_p50_ms": 2.5,
        "reference_p50_ms": 8.0,
        "baseline": "pytorch fp32",
        "batch_size": 1,
        "threads": 1,
    },
    "privacy": None,
    "robustness": {"clean": 0.9, "robust": 0.6},
    "limits": {"checks": [{"name": "min_metric", "limit": 0.9, "measured": 0.94, "outcome": "passed"}]},
    "warnings": [HOSTILE],
    "files": [{"path": "model.onnx", "sha256": "cd", "size_bytes": 22_000_000}],
}
RUNGS = [{"name": "trained", "score": 0.95, "bytes": 88_000_000, "latency_ms": 8.0}]


class _Tags(HTMLParser):
    """Opened elements, held against closed ones."""

    VOID = ("meta", "line", "circle", "rect", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open."""
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close what was opened last."""
        if tag not in self.VOID:
            assert self.open.pop() == tag


def page(**changes: Any) -> tuple[str, _Tags]:
    curves: dict[str, Any] = {}
    for step in range(40):
        keep(curves, step, {"train_loss": 1 / (step + 1), "learning_rate": 1e-4})
    answers = np.array([[2.0, -1.0], [0.1, 0.0], [-3.0, 3.0], [1.0, 1.5]], np.float32)
    text = report(
        {**RECEIPT, **changes},
        curves,
        RUNGS,
        {1: "foundation", 47: "deployment"},
        ["ham", HOSTILE],
        np.array([0, 1, 1, 0]),
        answers,
    ).decode()
    tags = _Tags()
    tags.feed(text)
    return text, tags


def test_the_report_stands_alone_and_is_well_formed() -> None:
    text, tags = page()
    assert not tags.open
    assert not tags.addresses
    assert not {"script", "link", "img", "iframe"} & tags.seen
    assert len(text) < 60_000


def test_the_report_says_what_was_measured() -> None:
    text, _ = page()
    for figure in ("0.94", "0.250", "22,000,000", "88,000,000", "0.31", "passed", "rows_changed 0.125", "0.6"):
        assert figure in text, figure
    assert text.index("deployment") < text.index("foundation"), "the pyramid has its top on top"
    assert text.count("<polyline") >= 3


def test_a_run_without_curves_classes_or_limits_has_no_empty_sections() -> None:
    bare = {**RECEIPT, "limits": {"checks": []}, "warnings": [], "robustness": None}
    text = report(bare, {}, [], {}).decode()
    assert "Learning curves" not in text
    assert "Calibration" not in text
    assert "Limits" not in text


def test_the_card_has_a_head_that_hubs_read_and_escapes_cells() -> None:
    text = card(RECEIPT, "text_classification", "onnx")
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["pipeline_tag"] == "text-classification"
    assert head["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.94, "verified": False}
    assert "| accuracy on 400 test rows | 0.95 (95 % 0.92 to 0.97) | 0.94 (95 % 0.91 to 0.96) |" in text
    assert "<script>" not in text
    assert "\\|x\\|" in text
    assert "None was asked for" in text
    assert "under attack 0.6" in text


def test_the_card_tells_of_privacy() -> None:
    spent = {
        "mechanism": "dp_sgd",
        "epsilon": 2.99,
        "delta": 1e-5,
        "unit": "record",
        "relation": "add",
        "accountant": "a",
    }
    assert "epsilon 2.99 at delta 1e-05" in card({**RECEIPT, "privacy": spent}, "text_classification", "onnx")


def test_an_audit_without_a_claim_tells_its_bound_alone() -> None:
    audited = {**RECEIPT, **audited_section(0.75)}
    text = card(audited, "text_classification", "onnx")
    assert "None was asked for" in text
    assert "bound epsilon from below: it is 0.75 at least" in text
    page = report(audited, {}, [], {}).decode()
    assert "<b>0.75</b><span>epsilon at least" in page


def test_curves_stay_bounded_keep_their_shape_and_take_repeated_steps_anew() -> None:
    curves: dict[str, Any] = {}
    for step in range(10_000):
        keep(curves, step, {"loss": float(step)})
    points = curves["loss"]["points"]
    assert MOST_POINTS / 2 <= len(points) <= MOST_POINTS
    assert points[0][0] == 0
    assert points[-1][0] > 9_900
    gaps = np.diff([step for step, _ in points])
    assert gaps.max() <= 2 * gaps.min()
    keep(curves, 5_000, {"loss": -1.0})
    assert curves["loss"]["points"][-1] in ([5_000, -1.0], curves["loss"]["points"][-1])
    assert all(step <= 5_000 for step, _ in curves["loss"]["points"])


def test_a_line_lies_inside_its_chart_and_ticks_are_round() -> None:
    drawn = plots.lines("t", [Line("a", [(0, 3.2), (7, 9.7)])])
    found = [float(x) for pair in re.findall(r'points="([^"]*)"', drawn)[0].split() for x in pair.split(",")]
    assert all(0 <= x <= plots.WIDTH for x in found[::2])
    assert all(0 <= y <= plots.HEIGHT for y in found[1::2])
    assert ">4<" in drawn
    assert ">6<" in drawn
    assert plots.lines("flat", [Line("a", [(1, 2.0)])]).count("<circle") == 1
    assert plots.lines("none", [Line("a", [])]) == ""


def test_a_share_is_drawn_between_0_and_1() -> None:
    drawn = plots.lines("sure", [Line("", [(0.98, 1.0)])], "score", diagonal=True)
    told = [float(one) for one in re.findall(r">([\d.]+)</text>", drawn)]
    assert min(told) == 0
    assert max(told) == 1
