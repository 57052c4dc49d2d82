"""An experiment on ag_news: a baseline and two treatments over three seeds, a verdict, and forty ballots by two raters.

Knows no other step.
"""

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import TAKEN, Failed, Walk, refusal
from benchmarks.machine import has_bf16
from benchmarks.servers import upload
from benchmarks.shared_data import joined
from client.http import Client, Json

_TASK = "text_classification"
_ROWS = {"train": 800, "valid": 120, "test": 400}
_TINY = {"train": 64, "valid": 24, "test": 40}
BALLOTS = 40
_RATERS = ("Ada", "Bo")


def walk(place: Walk) -> Iterator[Finding]:
    """Run the arms, read the verdicts, and let two raters judge."""
    most = _TINY if place.quick else _ROWS
    chosen: list[Any] = [11, *([26] if has_bf16() else [])]
    training = {"epochs": 1, "batch_size": 32, "max_length": 64}
    asked: Json = {
        "name": "smaller topics",
        "baseline": {
            "task": _TASK,
            "dataset": upload(place.client, joined(place.scratch("experiment"), "ag_news", most), _TASK),
            "instructions": chosen,
            "training": {**training, "max_steps": 2} if place.quick else training,
        },
        "treatments": [
            {"name": "8 bits", "changes": {"instructions": [*chosen, 47]}},
            {"name": "pruned, 8 bits", "changes": {"instructions": [*chosen, {"number": 45, "ratio": 0.3}, 47]}},
        ],
        "seeds": [1, 2] if place.quick else [1, 2, 3],
        "human": {"items": BALLOTS // len(_RATERS)},
    }
    made = place.client.post("/v1/experiments", asked)
    ended = _ended(place.client, made["id"])
    came = {
        "state": ended["state"],
        "accuracy": {one["name"]: [one["score"]["mean"], *one["score"]["ci95"]] for one in ended["arms"]},
        "bytes": {one["name"]: one["size_bytes"] for one in ended["arms"]},
        "latency over PyTorch's": {one["name"]: one["latency_ratio"] for one in ended["arms"]},
        "verdicts": {
            one["treatment"]: {
                name: one[name] for name in ("verdict", "difference", "ci95", "p_adjusted", "seeds_needed")
            }
            for one in ended["comparisons"]
        },
        "front": ended["front"],
    }
    decided = ended["state"] == "succeeded" and len(ended["comparisons"]) == len(asked["treatments"])
    yield Finding("a baseline and two treatments end with a verdict", asked, came, decided)
    yield _judged(place, made["id"])


def _ended(client: Client, experiment: str) -> Json:
    while True:
        found: Json = client.get(f"/v1/experiments/{experiment}")
        if found["state"] == "failed":
            raise Failed(f"the experiment {experiment} failed: {found['arms']}")
        if found["state"] != "running":
            return found
        time.sleep(2)


def _judged(place: Walk, experiment: str) -> Finding:
    """Two raters, each with a key of its own, cast ballots in turn; each casts its first one twice."""
    before = place.client.get(f"/v1/experiments/{experiment}")["human"]
    cast, twice = 0, []
    for name in _RATERS:
        key = place.client.post(f"/v1/experiments/{experiment}/raters", {"name": name})["secret"]
        rater = Client(place.client.server, str(key))
        first: Json | None = None
        while cast < BALLOTS * (1 + _RATERS.index(name)) // len(_RATERS):
            ballot = rater.get(f"/v1/experiments/{experiment}/ballots/next?rater={name}")
            if not ballot:
                break
            choice = "left" if len(str(ballot["left"])) <= len(str(ballot["right"])) else "both"
            vote = {"ballot": ballot["ballot"], "choice": choice}
            rater.post(f"/v1/experiments/{experiment}/ballots", vote)
            first, cast = first or vote, cast + 1
        again = first
        said = TAKEN if again is None else refusal(lambda: rater.post(f"/v1/experiments/{experiment}/ballots", again))  # noqa: B023
        twice.append(said["status"])
    after = place.client.get(f"/v1/experiments/{experiment}")["human"]
    came = {
        "ballots before": before["ballots"],
        "cast": cast,
        "after": after["ballots"],
        "cast again": twice,
        "strengths": {name: [one["value"], *one["ci95"]] for name, one in after["strengths"].items()},
        "alpha": after["alpha"],
    }
    counted = after["ballots"] == before["ballots"] + cast and cast > 0
    return Finding(
        "two raters' ballots change the human column, and count once", None, came, counted and twice == [409] * 2
    )


STEP = Step(
    "experiment",
    "a baseline, two treatments, and people",
    "an experiment of two treatments, 3 seeds each, ends with a verdict; ballots of two raters count once",
    walk,
)
