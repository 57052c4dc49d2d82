"""A tenant's jobs as a customer has them, put straight into the database: trained, running, failed, waiting.

The receipt has the shape of the demo's own (`docs/demo.json`), which is written anew from time to time, with figures of
its own where a test reads them; curves are drawn by formulas, so every run sees the same.
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import insert

from app.ids import new_id
from app.jobs import service
from app.jobs.models import Job, JobEvent, MetricPoint
from app.jobs.states import State
from engine.spec import Spec
from tests.app.seeds import seed_artifact

DEMO = Path(__file__).parents[3] / "docs" / "demo.json"
NOW = datetime.now(UTC)
LADDER = [
    {"name": "trained_in_float", "score": 0.972222, "bytes": 2_797_672, "latency_ms": 0.9844},
    {"name": "structured_pruning", "score": 0.894444, "bytes": 1_406_216, "latency_ms": 0.7215},
    {"name": "trained", "score": 0.972222, "bytes": 1_406_216, "latency_ms": 0.7302},
]


def receipt_of(job: str, **changes: Any) -> dict[str, Any]:
    """The demo's receipt as that of this job, with the same figures whatever the demo measured last."""
    receipt: dict[str, Any] = json.loads(DEMO.read_text())
    receipt["quality"]["exported"]["value"] = 0.972222
    receipt["size"]["exported_bytes"] = 452_909
    receipt["latency"]["exported_p50_ms"] = 0.1069
    pruning = next(one for one in receipt["plan"] if one["name"] == "structured_pruning")
    pruning["effects"]["parameters_removed"] = 0.498857
    return receipt | {"job": job, "ladder": copy.deepcopy(LADDER)} | changes


def curves(steps: int, *, every: int = 1, pace: float = 1.0, private: bool = False) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of the points of a run: nine series, or the two that a private run tells of."""
    for step in range(1, steps + 1, every):
        share = step / steps
        noise = math.sin(step * 12.9898) * math.sin(step * 4.1414)
        loss = 2.2 * math.exp(-5 * pace * share) + 0.12 + 0.08 * noise
        rate = 2e-3 * min(1.0, share / 0.06) * (0.5 + 0.5 * math.cos(math.pi * max(0.0, share - 0.06)))
        values = {
            "train_loss": loss,
            "valid_loss": 2.1 * math.exp(-4.4 * pace * share) + 0.19 + 0.02 * noise,
            "valid_score": min(1.0, 0.98 - 0.88 * math.exp(-6 * pace * share) + 0.006 * noise),
            "learning_rate": rate,
            "gradient_norm": 1.2 + 3.5 * math.exp(-3 * share) + 0.9 * abs(noise) ** 3,
            "clipped_fraction": 0.27 * (1 - math.exp(-20 * share)) + 0.02 * abs(noise),
            "examples_per_second": 2_150 + 180 * noise - 120 * (0.4 < share < 0.43),
            "step_seconds": 0.055 + 0.004 * noise,
            "memory_bytes": 812e6 + 240e6 * min(1.0, share * 4),
        }
        if private:
            values = {"learning_rate": rate, "epsilon": 3.0 * math.sqrt(share)}
        for name, value in values.items():
            yield name, step, value


def put_points(service_: FastAPI, job: str, points: Iterator[tuple[str, int, float]]) -> None:
    """Store points of a job."""
    rows = [
        {"job_id": job, "name": name, "step": step, "value": value, "at": NOW + timedelta(seconds=step * 0.055)}
        for name, step, value in points
    ]
    with service_.state.database.session() as session:
        session.execute(insert(MetricPoint), rows)


def put_job(
    service_: FastAPI, name: str, state: State, columns: Mapping[str, Any], training: Mapping[str, Any] | None = None
) -> str:
    """A job that trains on pictures; `columns` are of its row, `minutes_old` says since when it is there."""
    receipt = receipt_of("")
    chosen = [{"name": step["name"], **step["parameters"]} for step in receipt["plan"]]
    spec = Spec.model_validate(
        {
            "task": "image_classification",
            "dataset": receipt["inputs"]["datasets"][0]["id"],
            "instructions": chosen,
            "training": {"epochs": 25, "batch_size": 32, "learning_rate": 2e-3} | dict(training or {}),
            "limits": {"max_metric_loss": 0.03, "min_metric": 0.9, "max_size_ratio": 0.5},
        }
    )
    made = NOW - timedelta(minutes=columns.get("minutes_old", 60))
    job = Job(
        id=new_id("job"),
        tenant="default",
        kind="train",
        task="image_classification",
        name=name,
        metadata_={"team": "vision", "ticket": "OCR-118"},
        spec=spec.resolved(pretrained=True),
        plan=[{**step, "hooks": ["model", "loss"]} for step in receipt["plan"]],
        inputs={},
        state=state,
        events=1,
        created_at=made,
    )
    for column in columns.keys() - {"minutes_old"}:
        setattr(job, column, columns[column])
    with service_.state.database.session() as session:
        session.add(job)
        session.flush()
        session.add(JobEvent(job_id=job.id, sequence=1, type="state_changed", at=made, data={"state": "queued"}))
    return job.id


def put_file(service_: FastAPI, folder: Path, job: str, kind: str, filename: str, content: bytes) -> None:
    """A stored artifact of a job."""
    seed_artifact(service_, folder, "default", job, kind, filename, content)


def put_log(service_: FastAPI, job: str) -> None:
    """What a run printed."""
    folder = service.run_folder(service_.state.settings, job)
    folder.mkdir(parents=True)
    lines = [f"epoch {one}: train loss {2.2 * math.exp(-one / 5) + 0.12:.4f}" for one in range(1, 26)]
    (folder / service.LOG_NAME).write_text("\n".join(["resnet-small, 697322 parameters, 2 threads", *lines]) + "\n")


def succeeded(
    service_: FastAPI,
    folder: Path,
    name: str = "digits for the scanner",
    steps: int = 1125,
    *,
    pace: float = 1.0,
    training: Mapping[str, Any] | None = None,
) -> str:
    """A job that has trained and compressed, with its receipt, files, log and curves."""
    columns = {
        "step": steps,
        "total_steps": steps,
        "latest": {metric: value for metric, _, value in curves(steps, pace=pace)},
        "attempt": 1,
        "started_at": NOW - timedelta(minutes=58),
        "finished_at": NOW - timedelta(minutes=56, seconds=11),
        "result": {"limits": receipt_of("")["limits"]},
    }
    job = put_job(service_, name, State.SUCCEEDED, columns, training)
    put_points(service_, job, curves(steps, pace=pace))
    put_file(service_, folder, job, "model", "model.zip", b"PK" * 227_045)
    put_file(service_, folder, job, "checkpoint", "checkpoint.zip", b"PK" * 700_000)
    put_file(service_, folder, job, "receipt", "receipt.json", json.dumps(receipt_of(job)).encode())
    put_log(service_, job)
    return job


def running(service_: FastAPI, steps: int = 1125) -> str:
    """A job that is three fifths through its training."""
    done = steps * 3 // 5
    points = [point for point in curves(steps) if point[1] <= done]
    columns = {
        "step": done,
        "total_steps": steps,
        "phase": "train",
        "latest": {metric: value for metric, _, value in points},
        "attempt": 1,
        "eta_seconds": 43.5,
        "minutes_old": 3,
        "started_at": NOW - timedelta(minutes=1, seconds=4),
        "lease_owner": "worker:1",
        "lease_expires": NOW + timedelta(hours=1),
    }
    job = put_job(service_, "digits, wider and without pruning", State.RUNNING, columns)
    put_points(service_, job, iter(points))
    put_log(service_, job)
    return job


def others(service_: FastAPI) -> str:
    """Jobs in further states; the id of the one that has failed."""
    error = {
        "code": "limit_missed",
        "title": "A limit is missed",
        "detail": "min_speedup: 1.31 was measured, 1.5 was asked for",
        "remedy": "prune more (45), or lower limits.min_speedup",
        "errors": [],
    }
    told = {"step": 900, "total_steps": 900, "latest": {"valid_score": 0.9611}, "attempt": 1}
    spent = {"started_at": NOW - timedelta(hours=5), "finished_at": NOW - timedelta(hours=4, minutes=41)}
    failed = put_job(
        service_, "digits, pruned by half", State.FAILED, {"minutes_old": 310, "error": error, **told, **spent}
    )
    put_job(service_, "digits, first try", State.CANCELLED, {"minutes_old": 2_900, "attempt": 1})
    put_job(service_, "digits overnight", State.PAUSED, {"minutes_old": 800, **told, "step": 410, "phase": "train"})
    put_job(service_, "digits, five seeds (2)", State.QUEUED, {"minutes_old": 1})
    return failed


def whole(service_: FastAPI, folder: Path, steps: int = 1125) -> dict[str, str]:
    """All of it; the ids of the jobs that have pages worth a look."""
    failed = others(service_)
    first = succeeded(service_, folder, steps=steps)
    slower = {"learning_rate": 1e-3, "batch_size": 64}
    second = succeeded(service_, folder, "digits, half the rate", steps, pace=0.6, training=slower)
    return {"failed": failed, "first": first, "second": second, "running": running(service_, steps)}
