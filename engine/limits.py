"""Holds measured figures against the limits of a spec. Knows no model: a figure may come with an interval."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import Fault, LimitMissed
from engine.evaluate import Measured, wilson
from engine.spec import Limits

# name: (figure, whether the limit is a ceiling, what helps)
_RULES: Mapping[str, tuple[str, bool, str]] = {
    "max_metric_loss": ("metric_loss", True, "compress less: fewer of 43 to 52, or more bits"),
    "min_metric": ("metric", False, "train longer, give more rows, or lower the limit"),
    "min_agreement": ("agreement", False, "compress less, or choose quantization_aware_training (49)"),
    "min_speedup": (
        "speedup",
        False,
        "prune more (45), or lower the limit: this processor's figure stands in `latency`",
    ),
    "max_size_bytes": ("exported_bytes", True, "prune more (45), use fewer bits (47), or choose a smaller base model"),
    "max_size_ratio": ("size_ratio", True, "prune more (45), use fewer bits (47), or raise the limit"),
    "max_epsilon": ("epsilon", True, "choose dp_sgd (37): without it nothing bounds epsilon"),
    "min_robust_score": ("robust_score", False, "choose robustness_audit (36), which measures it"),
}
_SMALLER = "choose quantisation (47 or 49): it makes the file smaller"
# Of a language model neither 45 nor 47 and 49 serve.
_FEWER = "train a shallower student (43), or ship narrower numbers (export.format gguf, number q8_0)"
_OF_TOKENS: Mapping[str, str] = {
    "min_speedup": "train a shallower student (43), or lower the limit: this processor's figure stands in `latency`",
    **dict.fromkeys(("max_size_bytes", "max_size_ratio", "smaller_file"), _FEWER),
}


@dataclass(frozen=True)
class Figures:
    """What was measured; None for what was not."""

    metric: Measured
    metric_loss: Measured
    agreement: Measured | None
    speedup: Measured
    exported_bytes: int
    reference_bytes: int
    epsilon: float | None = None
    robust_score: Measured | None = None

    @property
    def size_ratio(self) -> float:
        """Exported over reference bytes."""
        return self.exported_bytes / self.reference_bytes


def robust_score(section: Mapping[str, Any] | None, confidence: float) -> Measured | None:
    """The share of attacked rows that were right to the end, from the receipt's `robustness`; None without one."""
    if section is None or section.get("metric") == "bits_per_byte":
        return None
    n = int(section["n"])
    right = round(float(section["robust"]) * n)
    return Measured(right / n, *wilson(right, n, confidence), n)


def checks(limits: Limits, figures: Figures, *, compresses: bool) -> list[dict[str, Any]]:
    """One check a limit that is set, and `smaller_file` for a plan that compresses.

    The point estimate decides; with `confidence`, the bad end of the interval must hold the limit too, and one that
    holds only on the good end is undecided.
    """
    found = [
        _check(name, float(limit), getattr(figures, figure), ceiling, limits.confidence)
        for name, (figure, ceiling, _) in _RULES.items()
        if (limit := getattr(limits, name)) is not None
    ]
    if compresses:
        smaller = figures.exported_bytes < figures.reference_bytes
        outcome = "passed" if smaller else "missed"
        about = {"limit": figures.reference_bytes, "measured": figures.exported_bytes, "outcome": outcome}
        found.append({"name": "smaller_file", **about})
    return found


def _check(
    name: str, limit: float, measured: Measured | float | None, ceiling: bool, confidence: float | None
) -> dict[str, Any]:
    if measured is None:
        return {"name": name, "limit": limit, "measured": None, "outcome": "undecided"}
    if not isinstance(measured, Measured) or confidence is None:
        value = measured.value if isinstance(measured, Measured) else float(measured)
        outcome = "passed" if _holds(value, limit, ceiling) else "missed"
        return {"name": name, "limit": limit, "measured": round(value, 6), "outcome": outcome}
    bad, good = (measured.high, measured.low) if ceiling else (measured.low, measured.high)
    outcome = "passed" if _holds(bad, limit, ceiling) else "undecided" if _holds(good, limit, ceiling) else "missed"
    interval = [round(measured.low, 6), round(measured.high, 6)]
    about = {"name": name, "limit": limit, "measured": round(measured.value, 6), "outcome": outcome}
    about |= {"confidence": confidence, "interval": interval}
    if outcome != "undecided":
        return about
    # A speedup rests on rounds of a race: no number of rows narrows it.
    return {**about, "rows_needed": None if name == "min_speedup" else _rows_needed(measured, limit, bad, good)}


def _holds(value: float, limit: float, ceiling: bool) -> bool:
    return value <= limit if ceiling else value >= limit


def _rows_needed(measured: Measured, limit: float, bad: float, good: float) -> int | None:
    """How many rows bring the interval's end to the limit: its width falls with the root of their number.

    None where the figure lies on the limit itself: no number of rows decides.
    """
    end = bad if (bad - measured.value) * (limit - measured.value) > 0 else good
    distance = limit - measured.value
    return math.ceil(measured.n * ((end - measured.value) / distance) ** 2) if distance else None


def faults(found: Sequence[Mapping[str, Any]], metric: str = "") -> Iterator[Fault]:
    """What is not passed, as faults: figure and limit side by side. `metric`: what the model is scored by."""
    instead = _OF_TOKENS if metric == "bits_per_byte" else {}
    for check in found:
        name, measured, limit = check["name"], check["measured"], check["limit"]
        if check["outcome"] == "passed":
            continue
        if name == "smaller_file":
            detail = f"the exported file has {measured:,} bytes, the untouched model {limit:,}"
            yield Fault("/instructions", "limit_missed", detail, instead.get(name, _SMALLER))
            continue
        figure, ceiling, remedy = _RULES[name]
        remedy = instead.get(name, remedy)
        if measured is None:
            yield Fault(
                f"/limits/{name}", "limit_undecided", f"{figure} was not measured; the limit is {_said(limit)}", remedy
            )
            continue
        bound = f"{figure} is {_said(measured)}; the limit is {'at most' if ceiling else 'at least'} {_said(limit)}"
        if check["outcome"] == "missed":
            yield Fault(f"/limits/{name}", "limit_missed", bound, remedy)
        else:
            rows = check["rows_needed"]
            bound += f", which lies inside the interval {check['interval']} at {check['confidence']:g}"
            give = f"give about {rows:,} test rows, or drop limits.confidence" if rows else "drop limits.confidence"
            yield Fault(f"/limits/{name}", "limit_undecided", bound, give)


def _said(number: float) -> str:
    """Bytes to the last one; what has a fraction to six digits."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"


def refuse_missed(receipt: Mapping[str, Any]) -> None:
    """Let a job whose figures miss a limit fail, after its files are whole.

    Raises:
        LimitMissed: with figure and limit of each side by side.
    """
    missed = list(faults(receipt["limits"]["checks"], receipt["quality"]["metric"]))
    if missed:
        detail = "; ".join(one.detail for one in missed)
        where = f"`fiftytwo download {receipt['job']} --kind receipt`" if receipt["job"] else "outputs/receipt.json"
        raise LimitMissed(detail, remedy=f"the files are kept, with every figure: {where}", faults=missed)
