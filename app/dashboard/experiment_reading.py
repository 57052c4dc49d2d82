"""An experiment as its page reads it: the runs and how far they are, the scales of its intervals, the chart of the
front. Positions are percent of a width or pixels of a height; knows no HTML.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.experiments.service import Seen
from app.jobs.models import Job
from app.jobs.schemas import progress_json
from app.jobs.states import TERMINAL
from engine.evaluate import METRICS

HEIGHT = 280
"""Pixels from the top of a chart's plane to its bottom."""
_LABEL, _NEAR = 15, 30
_LONGEST_LABEL = 16


@dataclass(frozen=True)
class Run:
    """The job of an arm with one seed; `state` None: it was erased. `fraction` is of its steps."""

    seed: int
    job: str
    state: str | None
    fraction: float
    phase: str | None
    eta_seconds: float | None


@dataclass(frozen=True)
class Scale:
    """From values to percent of a width."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where the value lies, 0 to 100."""
        return round(100 * (value - self.low) / ((self.high - self.low) or 1.0), 2)


@dataclass(frozen=True)
class Tick:
    """A number at an axis, and where."""

    at: float
    value: float


@dataclass(frozen=True)
class Point:
    """An arm in a chart: `x` in percent, `y` and the interval's ends and the label's line in pixels from the top."""

    index: int
    name: str
    label: str
    on_front: bool
    x: float
    y: float
    top: float
    bottom: float
    label_y: float
    anchor: str


@dataclass(frozen=True)
class Chart:
    """Score against a cost; labels stand over the intervals.

    `steps` are the corners of the line that no arm is beyond, (percent, percent).
    """

    title: str
    reads: str
    points: list[Point]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    steps: list[tuple[float, float]]


def runs(seen: Seen) -> list[tuple[str, list[Run]]]:
    """The runs of each arm."""
    return [
        (name, [_run(place.seed, place.job_id, job) for place, job in seen.of_arm(number)])
        for number, name in enumerate(seen.names)
    ]


def _run(seed: int, job_id: str, job: Job | None) -> Run:
    if job is None:
        return Run(seed, job_id, None, 1.0, None, None)
    told = progress_json(job)
    fraction = 1.0 if job.state in TERMINAL else told["fraction"] or 0.0
    return Run(seed, job_id, job.state.value, fraction, job.phase, told["eta_seconds"])


def whole(arms: Sequence[tuple[str, list[Run]]]) -> dict[str, Any]:
    """How far all runs are together."""
    every = [run for _, of_arm in arms for run in of_arm]
    ended = sum(run.state is None or run.state in TERMINAL for run in every)
    return {"ended": ended, "of": len(every), "fraction": sum(run.fraction for run in every) / max(1, len(every))}


def scale_of(intervals: Iterable[Mapping[str, Any] | None], *, key: str, zero: bool = False) -> Scale:
    """A scale that holds every interval with its value; with `zero` nought as well, and room at both ends."""
    numbers = [number for one in intervals if one for number in (one[key], *(one["ci95"] or ())) if number is not None]
    numbers += [0.0] if zero else []
    if not numbers:
        return Scale(0.0, 1.0)
    room = (max(numbers) - min(numbers)) * 0.04 or 0.01
    return Scale(min(numbers) - room, max(numbers) + room)


def agreement(alpha: float | None) -> str:
    """What Krippendorff's alpha says, in his own bounds."""
    if alpha is None:
        return "nobody has judged what another has"
    if alpha >= 0.8:
        return "raters agree well"
    if alpha >= 0.667:
        return "raters agree enough for a tentative word"
    return "raters agree no better than by chance" if alpha <= 0.05 else "raters agree little"


def charts(experiment: Mapping[str, Any]) -> list[Chart]:
    """Score against size and against latency, of the arms for which both are known; two arms at least."""
    better = 1 if METRICS[experiment["metric"]].more_is_better else -1
    found = []
    for field, title, reads in (
        ("size_bytes", "size of the file", "size"),
        ("latency_ratio", "latency, as a share of PyTorch's", "number"),
    ):
        arms = [
            (index, one)
            for index, one in enumerate(experiment["arms"])
            if one["score"] is not None and one[field] is not None
        ]
        if len(arms) > 1:
            found.append(_chart(arms, field, title, reads, better, frozenset(experiment["front"])))
    return found


def indented(part: Mapping[str, Any]) -> str:
    """A part of the request as JSON: the baseline, or what a treatment changes."""
    return json.dumps(part.get("changes", part), indent=2, ensure_ascii=False)


def _chart(
    arms: Sequence[tuple[int, Mapping[str, Any]]],
    field: str,
    title: str,
    reads: str,
    better: int,
    front: frozenset[str],
) -> Chart:
    x_ticks, across = _axis(0.0, max(one[field] for _, one in arms) * 1.08)
    lows = [one["score"]["ci95"][0] for _, one in arms]
    highs = [one["score"]["ci95"][1] for _, one in arms]
    y_ticks, up = _axis(min(lows), max(highs))

    def y(value: float) -> float:
        return round(HEIGHT * (1 - up.at(value) / 100), 1)

    points: list[Point] = []
    for index, one in sorted(arms, key=lambda arm: -y(arm[1]["score"]["ci95"][1])):
        score, x = one["score"], across.at(one[field])
        label_y = y(score["ci95"][1]) - 8
        for other in sorted(points, key=lambda point: -point.label_y):
            if abs(other.x - x) < _NEAR and abs(other.label_y - label_y) < _LABEL:
                label_y = other.label_y - _LABEL
        short = one["name"] if len(one["name"]) <= _LONGEST_LABEL else one["name"][: _LONGEST_LABEL - 1] + "…"
        anchor = "start" if x < 14 else "end" if x > 86 else "middle"
        ends = (y(score["ci95"][1]), y(score["ci95"][0]))
        points.append(
            Point(index, one["name"], short, one["name"] in front, x, y(score["mean"]), *ends, label_y, anchor)
        )
    shown = [Tick(round(HEIGHT * (1 - tick.at / 100), 1), tick.value) for tick in y_ticks]
    return Chart(
        title, reads, sorted(points, key=lambda one: one.index), x_ticks, shown, _steps(arms, field, better, across, up)
    )


def _steps(
    arms: Sequence[tuple[int, Mapping[str, Any]]], field: str, better: int, across: Scale, up: Scale
) -> list[tuple[float, float]]:
    """The staircase over the arms that none is both cheaper and better than."""
    corners: list[tuple[float, float]] = []
    best = -math.inf
    for _, one in sorted(arms, key=lambda arm: (arm[1][field], -better * arm[1]["score"]["mean"])):
        if better * one["score"]["mean"] > best:
            best = better * one["score"]["mean"]
            x, y = across.at(one[field]), 100 - up.at(one["score"]["mean"])
            corners += [(x, corners[-1][1] if corners else (100.0 if better > 0 else 0.0)), (x, y)]
    return [*corners, (100.0, corners[-1][1])]


def _axis(low: float, high: float) -> tuple[list[Tick], Scale]:
    """Three to seven round numbers, and the scale from the first to the last."""
    rough = (high - low) / 4 or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1, 2, 2.5, 5, 10) if one * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    scale = Scale(first * step, max(last, first + 1) * step)
    values = [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]
    return [Tick(scale.at(value), value) for value in values], scale
