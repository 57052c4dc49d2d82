"""A job and its receipt as its page reads them: the twelve metrics, the pyramid, the ladder. Knows no HTTP."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.jobs.states import TERMINAL, State
from engine.baseline import PANEL
from engine.catalogue import describe
from engine.guard import PRIVATE

TIERS = ("deployment", "safety", "efficiency", "foundation")
"""The levels of the pyramid, from the top."""

_KINDS = {
    "train_loss": ("Training loss", "number"),
    "valid_loss": ("Validation loss", "number"),
    "valid_score": ("Validation score", "number"),
    "learning_rate": ("Learning rate", "number"),
    "gradient_norm": ("Gradient norm", "number"),
    "clipped_fraction": ("Clipped steps", "percent"),
    "loss_scale": ("Loss scale", "number"),
    "examples_per_second": ("Examples a second", "number"),
    "step_seconds": ("Time of a step", "duration"),
    "memory_bytes": ("Memory", "size"),
    "padding_fraction": ("Padding", "percent"),
    "epsilon": ("Epsilon spent", "number"),
}
_PUBLIC = frozenset({"learning_rate", "epsilon"})
_ONLY_WITH = {
    "epsilon": "Only a private run spends it: 37 or 40.",
    "loss_scale": "Only with loss scaling in float16: 28.",
    "clipped_fraction": "Only with clipping: 22.",
}
_SECTIONS = ("quality", "size", "latency", "privacy", "robustness", "limits", "environment", "signature")
_SHOWN_ELSEWHERE = frozenset(
    {"metric", "reference", "exported", "loss", "recall", "agreement", "base", "calibration", "classes", "generation"}
)
_AT_AN_END = frozenset({"valid_loss", "valid_score"})


@dataclass(frozen=True)
class Metric:
    """One of the twelve: its name, its title, how its values read, the last one, and why there is none."""

    name: str
    title: str
    reads: str
    last: float | None
    absent: str | None


@dataclass(frozen=True)
class Step:
    """An instruction of the plan; `headline` is the effect that it is known by."""

    number: int
    name: str
    title: str
    does: str
    parameters: Mapping[str, Any]
    effects: Mapping[str, Any]
    headline: tuple[str, Any] | None


@dataclass(frozen=True)
class Rung:
    """One state of the model on its way to the file, with its shares of the largest bytes and latency of the ladder."""

    name: str
    score: float | None
    bytes: int
    latency_ms: float
    of_bytes: float
    of_latency: float
    measured: str


@functools.cache
def catalogue() -> dict[int, dict[str, Any]]:
    """The instructions by number."""
    return {one["number"]: one for one in describe()}


def metric_title(name: str) -> str:
    """What a metric is called on a page; one that is none of the twelve by its own name."""
    return _KINDS[name][0] if name in _KINDS else name.replace("_", " ")


def metrics(job: Mapping[str, Any]) -> list[Metric]:
    """The twelve metrics; one that the run does not have carries the reason."""
    latest = job["latest"]
    return [
        Metric(name, *_KINDS[name], latest.get(name), None if name in latest else _absence(name, job)) for name in PANEL
    ]


def _absence(name: str, job: Mapping[str, Any]) -> str:
    if job["kind"] != "train":
        if job["kind"] == "compress":
            return "A compress job keeps no metrics of the steps of its recovery; the receipt has what came of them."
        return f"This {job['kind']} job takes no training steps." if not job["latest"] else "This job has none."
    private = any(PRIVATE in catalogue()[step["number"]]["provides"] for step in job["plan"])
    if private and name not in _PUBLIC:
        return "Kept back: it is a figure of private rows."
    if name in _ONLY_WITH and not (private and name == "epsilon"):
        return _ONLY_WITH[name]
    if name == "padding_fraction" and job["task"] == "image_classification":
        return "Pictures are not padded."
    if job["state"] in TERMINAL:
        return "The run did not tell of it."
    return "Comes at the end of an epoch." if name in _AT_AN_END and job["latest"] else "Comes with the first step."


def pyramid(plan: Sequence[Mapping[str, Any]], receipt: Mapping[str, Any] | None) -> list[tuple[str, list[Step]]]:
    """The plan by tier, from the top of the pyramid; effects are those that the receipt tells of."""
    told = {step["number"]: step["effects"] for step in (receipt or {}).get("plan", ())}
    found: dict[str, list[Step]] = {tier: [] for tier in TIERS}
    for step in plan:
        known, effects = catalogue()[step["number"]], told.get(step["number"], {})
        headline = known["metric"] if known["metric"] in effects else next(iter(effects), None)
        found[known["tier"]].append(
            Step(
                step["number"],
                step["name"],
                known["title"],
                known["does"],
                step["parameters"],
                effects,
                (headline, effects[headline]) if headline else None,
            )
        )
    return list(found.items())


def ladder(receipt: Mapping[str, Any]) -> list[Rung]:
    """What each step of the compression made of the model, then the file itself."""
    size, latency = receipt.get("size"), receipt.get("latency")
    rungs = [
        (one["name"], one["score"], one["bytes"], one["latency_ms"], "PyTorch") for one in receipt.get("ladder", ())
    ]
    if rungs and size and latency and latency.get("exported_p50_ms") is not None:
        score = receipt["quality"]["exported"]["value"]
        rungs.append(("the file", score, size["exported_bytes"], latency["exported_p50_ms"], "the file"))
    widest = max((one[2] for one in rungs), default=0) or 1
    slowest = max((one[3] for one in rungs), default=0) or 1
    return [Rung(*one[:4], one[2] / widest, one[3] / slowest, one[4]) for one in rungs]


def complete(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """The receipt with None for each section and figure that its kind of job does not have."""
    whole = dict.fromkeys(_SECTIONS) | {"plan": [], "warnings": []} | dict(receipt)
    if whole["quality"]:
        whole["quality"] = dict.fromkeys(("loss", "agreement", "flipped", "recall")) | dict(whole["quality"])
    return whole


def further(quality: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What else a receipt's quality tells: name, figure of the file, figure of the reference or None."""
    found = list[tuple[str, Any, Any]]()
    for name, one in quality.items():
        if name in _SHOWN_ELSEWHERE or name == quality.get("metric"):
            continue
        if isinstance(one, int | float):
            found.append((name, one, None))
        elif isinstance(one, Mapping) and {"reference", "exported"} <= one.keys():
            found.append((name, one["exported"], one["reference"]))
        elif isinstance(one, Mapping):
            found += [(f"{name}, {part}", figure, reference) for part, figure, reference in further(one)]
    return found


def is_live(job: Mapping[str, Any]) -> bool:
    """Whether the job may still change."""
    return State(job["state"]) not in TERMINAL


def differing(jobs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The parameters in which the jobs differ, each with its value by job; None where a job lacks it."""
    flat = [dict(_parameters(job)) for job in jobs]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = [(name, [one.get(name) for one in flat]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def _parameters(job: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = [(name, job.get(name)) for name in ("kind", "task", "model", "dataset", "metric")]
    for group in ("training", "limits", "export"):
        found += [(f"{group}: {name}", value) for name, value in (job.get(group) or {}).items()]
    for step in job["plan"]:
        found.append((f"{step['number']} {step['name'].replace('_', ' ')}", "chosen"))
        found += [(f"{step['number']} {name}", value) for name, value in step["parameters"].items()]
    return found
