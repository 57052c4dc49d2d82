"""A private job that anyone can recount, and what its data set's budget then refuses. Knows no other step."""

from collections.abc import Iterator

from benchmarks import outsider
from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import Walk, refusal
from benchmarks.servers import upload
from benchmarks.shared_data import joined
from client.http import Client, Json

BUDGET = {"epsilon": 4.0, "delta": 5e-5}
_TASK = "text_classification"
_TINY = {"train": 400, "valid": 60, "test": 40}


def walk(place: Walk) -> Iterator[Finding]:
    """Give sst2 a budget, train under it, recount, and ask for more than is left."""
    with place.tenant("records") as client:
        yield from _walked(place, client)


def _walked(place: Walk, client: Client) -> Iterator[Finding]:
    most = _TINY if place.quick else None
    dataset = upload(client, joined(place.scratch("private"), "sst2", most), _TASK)
    client.put(f"/v1/privacy/budgets/{dataset}", BUDGET)
    chosen: Json = {"number": 37, "epsilon": 3.0, "delta": BUDGET["delta"], "expected_batch": 512, "steps": 100}
    small: Json = {"expected_batch": 40, "steps": 3}
    body: Json = {
        "task": _TASK,
        "dataset": dataset,
        "instructions": [chosen | small if place.quick else chosen],
        "training": {"learning_rate": 2e-2, "max_length": 64},
    }
    done = place.run(body, client)
    privacy, quality = done.receipt["privacy"], done.receipt["quality"]["exported"]
    raw = outsider.epsilon(privacy)
    entries = list(client.listed("/v1/privacy/ledger", job=done.id))
    came = {
        "epsilon in the receipt": privacy["epsilon"],
        "by dp-accounting alone": round(raw, 6),
        "the same in hundredths, rounded up": outsider.in_hundredths(raw),
        **{name: privacy[name] for name in ("sampling_rate", "noise_multiplier", "steps", "delta", "unit")},
        "steps in the ledger": sum(one["counted"] for one in entries),
        "accuracy": quality["value"],
        "its 95 % interval": quality["ci95"],
    }
    counted = came["steps in the ledger"] == privacy["steps"] and privacy["epsilon"] <= 3.0
    same = outsider.in_hundredths(raw) == privacy["epsilon"]
    yield Finding(
        "37 at epsilon 3: the receipt's epsilon is dp-accounting's for its steps", body, came, same and counted
    )
    yield from _refused(client, dataset, body)


def _refused(client: Client, dataset: str, body: Json) -> Iterator[Finding]:
    again = {**body, "training": {**body["training"], "seed": 8}}
    said = refusal(lambda: client.post("/v1/jobs", again))
    budget = next(one for one in client.listed("/v1/privacy/budgets") if dataset in one["datasets"])
    came = {**said, "budget": BUDGET["epsilon"], "spent": budget["spent"], "left in the account": budget["left"]}
    held = said["status"] == 409 and said.get("left") == budget["left"]
    yield Finding("a second job that would overspend is refused at submit with what is left", again, came, held)
    plain = {name: value for name, value in body.items() if name != "instructions"}
    said = refusal(lambda: client.post("/v1/jobs", plain))
    held = said["status"] == 422 and said["code"] == "needs_privacy"
    yield Finding("a job without privacy on the same data is refused", plain, said, held)


STEP = Step(
    "private",
    "privacy that anyone can recount",
    "a private job (37) at epsilon 3 whose receipt's epsilon equals what dp-accounting gives for its recorded steps,"
    " computed by a script that uses none of `engine`; a second job on the same data that would overspend is refused at"
    " submit",
    walk,
)
