"""An experiment as it stands in answers. Knows no rule and asks nobody: it is handed what was found."""

from collections.abc import Mapping
from typing import Any

from app.answers import timestamp
from app.experiments.service import Seen

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
        "front": [],
        "created_at": timestamp(one.created_at),
        "links": {"self": own, **({"cancel": f"{own}/cancel"} if seen.state == "running" else {})},
    }


def _runs(seen: Seen, arm: int) -> dict[str, Any]:
    runs = [
        {"seed": place.seed, "job": place.job_id, "state": None if job is None else job.state.value}
        for place, job in seen.of_arm(arm)
    ]
    return {"jobs": [run["job"] for run in runs], "runs": runs}
