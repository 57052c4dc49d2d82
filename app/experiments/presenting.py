"""An experiment as it stands in answers. Knows no rule and asks nobody: it is handed what was found."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.answers import timestamp
from app.experiments.service import Seen
from app.experiments.statistics import pareto
from engine.evaluate import METRICS

_UNKNOWN = dict.fromkeys(("score", "size_bytes", "latency_ratio", "training_seconds", "epsilon"))


def experiment_json(seen: Seen, human: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The experiment; `human`: what people said so far."""
    one, own = seen.experiment, f"/v1/experiments/{seen.experiment.id}"
    figures = one.figures or {"arms": [_UNKNOWN] * len(seen.names), "comparisons": []}
    return {
        "id": one.id,
        "object": "experiment",
        "name": one.name,
        "state": seen.state,
        "task": one.task,
        "metric": one.metric,
        "seeds": one.seeds,
        "margin": one.margin,
        "baseline": one.baseline,
        "treatments": one.treatments,
        "arms": [
            {"name": name, **_runs(seen, number), **figures["arms"][number]} for number, name in enumerate(seen.names)
        ],
        "comparisons": figures["comparisons"],
        "human": human,
        "front": front(seen.names, figures["arms"], human, more_is_better=METRICS[one.metric].more_is_better),
        "created_at": timestamp(one.created_at),
        "links": {"self": own, **({"cancel": f"{own}/cancel"} if seen.state == "running" and not seen.ended else {})},
    }


def front(
    names: Sequence[str],
    arms: Sequence[Mapping[str, Any]],
    human: Mapping[str, Any] | None,
    *,
    more_is_better: bool,
) -> list[str]:
    """The arms with a score that no other is at least as good as in all that was measured, and better in some.

    Measured are score, size, latency, epsilon where an arm has one (none counts as without end), and what people say
    once they have said it of all of these arms.
    Points are compared, not their intervals.
    """
    known = [number for number, arm in enumerate(arms) if arm["score"] is not None]
    private = any(arms[number]["epsilon"] is not None for number in known)
    strengths = (human or {}).get("strengths") or {}
    judged = all(names[number] in strengths for number in known)
    points = []
    for number in known:
        arm = arms[number]
        point = [arm["score"]["mean"] * (1 if more_is_better else -1), -arm["size_bytes"], -arm["latency_ratio"]]
        point += [-math.inf if arm["epsilon"] is None else -arm["epsilon"]] if private else []
        point += [strengths[names[number]]["value"]] if judged else []
        points.append(point)
    return [names[known[number]] for number in pareto(points)]


def _runs(seen: Seen, arm: int) -> dict[str, Any]:
    runs = [
        {"seed": place.seed, "job": place.job_id, "state": None if job is None else job.state.value}
        for place, job in seen.of_arm(arm)
    ]
    return {"jobs": [run["job"] for run in runs], "runs": runs}
