"""A whole federation in one job: sst2 dealt to many clients, and companies that are too few. Knows no other step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import outsider
from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import Walk, refusal
from benchmarks.servers import upload
from benchmarks.shared_data import Row, joined, rows
from client.http import Client, Json

CLIENTS, SEED = 1_500, 52
CATALOGUE = 0.780
"""Accuracy at epsilon 3 with 1,500 clients, as the catalogue has it from three seeds."""
_TASK = "text_classification"
_TINY, _FEW = {"train": 400, "valid": 110, "test": 40}, 120


def walk(place: Walk) -> Iterator[Finding]:
    """Train with many clients at epsilon 3; ask for the same with the clauses of 29 companies."""
    with place.tenant("simulation") as client:
        yield _many(place, client)
        yield _companies(client, place.scratch("clients"))


def _many(place: Walk, client: Client) -> Finding:
    clients, most = (_FEW, _TINY) if place.quick else (CLIENTS, None)
    owners = dealt(clients, sum(1 for _ in rows("sst2", "train", (most or {}).get("train"))))

    def client_of(split: str, number: int, _row: Row) -> str:
        return f"client-{owners[number]:04d}" if split == "train" else "held-out"

    file = joined(place.scratch("clients"), "sst2", most, client_of)
    chosen: Json = {"number": 40, "epsilon": 3.0}
    body: Json = {
        "task": _TASK,
        "dataset": upload(client, file, _TASK, group_column="client"),
        "instructions": [chosen | ({"rounds": 3} if place.quick else {})],
    }
    done = place.run(body, client)
    privacy, quality = done.receipt["privacy"], done.receipt["quality"]["exported"]
    alone = outsider.in_hundredths(outsider.epsilon(privacy))
    effects = next(one["effects"] for one in done.receipt["plan"] if one["number"] == 40)
    came: dict[str, Any] = {
        "accuracy": quality["value"],
        "its 95 % interval": quality["ci95"],
        "the catalogue's": CATALOGUE,
        "clients": round(effects["clients"]),
        "rounds": round(effects["rounds"]),
        "epsilon in the receipt": privacy["epsilon"],
        "by dp-accounting alone": alone,
        "delta": privacy["delta"],
        "unit": privacy["unit"],
    }
    counted = alone == privacy["epsilon"] <= 3.0 and came["clients"] == clients
    reached = place.quick or quality["ci95"][1] >= CATALOGUE
    asks = "a simulation on sst2 dealt to 1,500 clients, at epsilon 3 within its interval of the catalogue's accuracy"
    return Finding(asks, body, came, counted and reached)


def dealt(clients: int, count: int, seed: int = SEED) -> npt.NDArray[np.int64]:
    """The client of each row, dealt at random as evenly as it goes; (count,), 0 to clients - 1."""
    found: npt.NDArray[np.int64] = np.random.default_rng(seed).permutation(count) % clients
    return found


def _companies(client: Client, folder: Path) -> Finding:
    clauses = joined(folder, "tos_unfair", None, lambda _split, _number, row: str(row["client"]))
    dataset = upload(client, clauses, _TASK, group_column="client")
    body: Json = {"task": _TASK, "dataset": dataset, "instructions": [{"number": 40, "epsilon": 3.0}]}
    said = refusal(lambda: client.post("/v1/jobs", body))
    held = (said["status"], said.get("code")) == (422, "too_few_clients") and said["detail"].startswith("29 clients")
    return Finding("the same on tos_unfair by company is refused at submit with the reason", body, said, held)


STEP = Step(
    "simulation",
    "a federation in one job",
    "`aggregate` as a simulation on sst2 dealt to 1,500 clients; the same on tos_unfair by company (29 clients) is"
    " refused at submit with the reason",
    walk,
)
