"""Experiments as a customer has them, put straight into the database: judged, undecided, running."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from app.auth.bootstrap import add_key, new_secret
from app.experiments.models import (
    Experiment,
    ExperimentBallot,
    ExperimentItem,
    ExperimentJob,
    ExperimentRater,
)
from app.ids import new_id
from app.jobs.states import State
from tests.app.dashboard.scenes import NOW, put_job
from tests.app.seeds import seed_dataset

SECRET = "5a" * 32
LABELS = ("spam", "ham")
ARMS = ("baseline", "pruned", "pruned, 8 bits")
FIGURES: dict[str, Any] = {
    "arms": [
        {
            "score": {"mean": 0.9821, "ci95": [0.9703, 0.9906], "n": 558},
            "size_bytes": 90_870_000,
            "latency_ratio": 0.412,
            "training_seconds": 412.6,
            "epsilon": None,
        },
        {
            "score": {"mean": 0.9797, "ci95": [0.9671, 0.9889], "n": 558},
            "size_bytes": 61_240_000,
            "latency_ratio": 0.287,
            "training_seconds": 498.1,
            "epsilon": None,
        },
        {
            "score": {"mean": 0.9618, "ci95": [0.9452, 0.9751], "n": 558},
            "size_bytes": 15_960_000,
            "latency_ratio": 0.121,
            "training_seconds": 531.9,
            "epsilon": None,
        },
    ],
    "comparisons": [
        {
            "treatment": "pruned",
            "metric": "accuracy",
            "difference": -0.0024,
            "ci95": [-0.0139, 0.0091],
            "p_value": 0.681,
            "p_adjusted": 0.681,
            "verdict": "undecided",
            "seeds_needed": 4,
            "margin": 0.01,
            "n": 558,
            "by_seed": [
                {"seed": 1, "difference": -0.0054},
                {"seed": 2, "difference": 0.0018},
                {"seed": 3, "difference": -0.0036},
            ],
            "summary": "The data do not decide about pruned: its accuracy differs from the baseline's by -0.0024 (95 %"
            " interval -0.0139 to +0.0091, adjusted p = 0.68). About 4 further seeds would, if the difference and the"
            " spread stay what they are.",
        },
        {
            "treatment": "pruned, 8 bits",
            "metric": "accuracy",
            "difference": -0.0203,
            "ci95": [-0.0324, -0.0089],
            "p_value": 0.0006,
            "p_adjusted": 0.0012,
            "verdict": "worse",
            "seeds_needed": 0,
            "margin": 0.01,
            "n": 558,
            "by_seed": [
                {"seed": 1, "difference": -0.0215},
                {"seed": 2, "difference": -0.0179},
                {"seed": 3, "difference": -0.0215},
            ],
            "summary": "pruned, 8 bits is worse than the baseline: its accuracy differs from the baseline's by -0.0203"
            " (95 % interval -0.0324 to -0.0089, adjusted p = 0.0012).",
        },
    ],
}
TEXTS = (
    "WINNER!! As a valued network customer you have been selected to receive a £900 prize reward! To claim call"
    " 09061701461. Claim code KL341. Valid 12 hours only.",
    "Ok lar... Joking wif u oni...",
    "Your parcel is at the depot, pay £1.45 here to have it delivered tomorrow",
    "I'm gonna be home soon and i don't want to talk about this stuff anymore tonight, k? I've cried enough today.",
)
BASELINE = {
    "task": "text_classification",
    "dataset": "ds_01KB0M5K2N8Q4R6T9V1W3Y5Z7A",
    "training": {"epochs": 2, "max_length": 96},
}
TREATMENTS = [
    {"name": ARMS[1], "changes": {"instructions": [{"name": "structured_pruning", "ratio": 0.3}]}},
    {
        "name": ARMS[2],
        "changes": {"instructions": [{"name": "structured_pruning", "ratio": 0.3}, "post_training_quantization"]},
    },
]


def put_experiment(service: FastAPI, name: str | None, states: list[list[tuple[State, float]]], **columns: Any) -> str:
    """An experiment with a job for every state and share of the steps, by arm and seed."""
    one = Experiment(
        **{
            "id": new_id("exp"),
            "tenant": "default",
            "name": name,
            "task": "text_classification",
            "metric": "accuracy",
            "dataset_id": BASELINE["dataset"],
            "baseline": BASELINE,
            "treatments": TREATMENTS[: len(states) - 1],
            "seeds": list(range(1, len(states[0]) + 1)),
            "margin": 0.01,
            "human_items": None,
            "secret": SECRET,
            "created_at": NOW - timedelta(minutes=34),
        }
        | columns
    )
    with service.state.database.session() as session:
        session.add(one)
    places = []
    for arm, of_arm in enumerate(states):
        for seed, (state, share) in enumerate(of_arm, 1):
            told: dict[str, Any] = {"step": int(1200 * share), "total_steps": 1200, "attempt": 1}
            running: dict[str, Any] = {"phase": "train", "eta_seconds": 131.0} if state is State.RUNNING else {}
            job = put_job(service, f"{name}: {ARMS[arm]}, seed {seed}", state, told | running)
            places.append(ExperimentJob(experiment_id=one.id, arm=arm, seed=seed, job_id=job))
    with service.state.database.session() as session:
        session.add_all(places)
    return one.id


def judged(service: FastAPI, dataset: str | None = None, items: int = 20) -> str:
    """An experiment that has ended, with texts to judge; `dataset`: the stored data set that they came from."""
    done = [[(State.SUCCEEDED, 1.0)] * 3] * 3
    experiment = put_experiment(
        service,
        "does pruning hurt the spam filter?",
        done,
        figures=FIGURES,
        human_items=40,
        **({"dataset_id": dataset} if dataset else {}),
    )
    if dataset:
        put_items(service, experiment, dataset, items)
    return experiment


def put_items(service: FastAPI, experiment: str, dataset: str, items: int, **columns: Any) -> None:
    """Rows on which the arms disagree; texts with a label, unless the columns say otherwise."""
    with service.state.database.session() as session:
        session.add_all(
            ExperimentItem(
                **{
                    "experiment_id": experiment,
                    "number": number,
                    "dataset_id": dataset,
                    "shown": {"kind": "text", "text": TEXTS[number % len(TEXTS)], "cut": False},
                    "answers": [{"kind": "label", "label": LABELS[(number + arm) % 2]} for arm in range(len(ARMS))],
                }
                | columns
            )
            for number in range(items)
        )


def put_ballots(service: FastAPI, experiment: str, items: int) -> None:
    """What two raters say, who like the baseline best and agree more often than not."""
    with service.state.database.session() as session:
        for number, rater in enumerate(("Ada", "Bo")):
            made = NOW - timedelta(minutes=20 - number)
            session.add(ExperimentRater(experiment_id=experiment, name=rater, key_id=new_id("key"), created_at=made))
            session.add_all(
                ExperimentBallot(
                    experiment_id=experiment,
                    rater=rater,
                    item=item,
                    first_arm=first,
                    second_arm=first + 1,
                    preferred=_said(item, first, number),
                    cast_at=NOW,
                )
                for item in range(items)
                for first in (0, 1)
            )


def _said(item: int, first: int, rater: int) -> str:
    if item % 7 == 3:
        return "both" if rater else "neither"
    if (item * 5 + rater * 3) % 11 == 0:
        return "second"
    return "second" if (item * 3 + first * 4) % 10 < 3 - first else "first"


def whole(service: FastAPI, dataset: str | None = None, items: int = 20) -> dict[str, str]:
    """All of it; the ids by what they are."""
    run, wait, done = (State.RUNNING, 0.62), (State.QUEUED, 0.0), (State.SUCCEEDED, 1.0)
    put_experiment(service, "first try", [[(State.CANCELLED, 0.2)] * 3] * 2, cancelled_at=NOW)
    failed = put_experiment(service, "half the rate", [[done] * 3, [(State.FAILED, 0.4)] * 3])
    running = put_experiment(
        service, "bits or pruning?", [[done, run, wait], [done, (State.RUNNING, 0.31), wait], [run, wait, wait]]
    )
    return {"judged": judged(service, dataset, items), "running": running, "failed": failed}


def pictured(service: FastAPI, folder: Path) -> dict[str, str]:
    """What pictures are taken of: one that is judged, one that runs (`compared`), and the key of a rater."""
    dataset, items, secret = seed_dataset(service, folder), 20, new_secret()
    seen = whole(service, dataset, items)
    put_ballots(service, seen["judged"], items)
    with service.state.database.session() as session:
        key = add_key(session, "Cy", "rater", "default", secret, made_by=None)
        session.add(ExperimentRater(experiment_id=seen["judged"], name="Cy", key_id=key.id, created_at=NOW))
    return {"judged": seen["judged"], "compared": seen["running"], "rater": secret}
