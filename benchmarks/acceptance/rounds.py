"""Rounds over uploaded updates: what is refused singly, what comes back, how two rounds add up. Knows no data set."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from scipy import stats

from benchmarks import outsider
from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import Done, Walk, finished, refusal
from client.http import Client, Json
from client.tensors import read_tensors

Update = Mapping[str, npt.NDArray[np.float32]]
Values = Mapping[str, npt.NDArray[np.float64]]

CLIP, EXPECTED, CLIENTS, DELTA = 0.5, 40, 40, 1e-5
SHAPES = {"classifier.bias": (4,), "classifier.weight": (4, 384)}
_POPULATION = {"name": "wards", "clients": 1_500, "min_clients": 20, "budget": {"epsilon": 3.0, "delta": DELTA}}
_STATUSES = {"not finite": 422, "other shape": 422, "no safetensors": 422, "second": 409, "late": 409}
_NOISY = (0.0005, 0.9995)
"""Quantiles of chi-square that the noise of a round has to lie between."""
_SEED = 52


def walk(place: Walk) -> Iterator[Finding]:
    """A round with faulty updates among sound ones, a second one from its result, and one that nothing is left for."""
    with place.tenant("wards") as client:
        population = client.post("/v1/populations", _POPULATION)
        shapes = {name: {"shape": list(shape), "dtype": "F32"} for name, shape in SHAPES.items()}
        wanted: Json = {"population": population["id"], "tensors": shapes, "clip_norm": CLIP, "epsilon": 1.0}
        wanted["expected_clients"] = EXPECTED
        opened = client.post("/v1/rounds", wanted)["id"]
        sent = [update_of(number) for number in range(CLIENTS)]
        refused = _refused_singly(client, opened, sent)
        first = _closed(client, wanted, opened, sent)
        refused["late"] = refusal(lambda: put(client, opened, "ward-2000", sent[0]))
        told = {name: f"{one['status']}, {one.get('code')}: {one.get('detail')}" for name, one in refused.items()}
        held = {name: one["status"] for name, one in refused.items()} == _STATUSES
        yield Finding("wrong, double and late updates are refused singly", None, told, held)
        aggregate = read_tensors(client.download(first.artifact("aggregate"), place.scratch("rounds") / "first"))
        yield Finding("`aggregate` with uploaded updates", wanted, *release(first, aggregate, mean_of(sent)))
        yield from _further(place, client, first, aggregate)


def _refused_singly(client: Client, opened: str, sent: Sequence[Update]) -> dict[str, Json]:
    """What a round must not take; a client that has sent its update may send the same again."""
    put(client, opened, "ward-0000", sent[0])
    put(client, opened, "ward-0000", sent[0])
    broken = {**sent[3], "classifier.bias": sent[3]["classifier.bias"] * np.float32(math.nan)}
    short = {**sent[4], "classifier.bias": np.zeros(3, np.float32)}
    tried = {
        "not finite": lambda: put(client, opened, "ward-1000", broken),
        "other shape": lambda: put(client, opened, "ward-1001", short),
        "no safetensors": lambda: client.put(f"/v1/rounds/{opened}/updates/ward-1002", b"no file of tensors"),
        "second": lambda: put(client, opened, "ward-0000", sent[5]),
    }
    return {name: refusal(call) for name, call in tried.items()}


def _further(place: Walk, client: Client, first: Done, base: Mapping[str, Any]) -> Iterator[Finding]:
    """A round whose clients send whole weights, measured from the first one's result; then one that is too loud."""
    wanted = {name: value for name, value in first.sent.items() if name != "tensors"}
    wanted |= {"base": first.artifact("aggregate")["id"], "format": "weights"}
    moved = [update_of(number, 1) for number in range(CLIENTS)]
    weights = [{name: base[name] + part for name, part in one.items()} for one in moved]
    second = _closed(client, wanted, client.post("/v1/rounds", wanted)["id"], weights)
    found = read_tensors(client.download(second.artifact("aggregate"), place.scratch("rounds") / "second"))
    figures, sound = release(second, found, {name: base[name] + part for name, part in mean_of(moved).items()})
    both = outsider.in_hundredths(outsider.composed([one.receipt["privacy"] for one in (first, second)], DELTA))
    total = second.receipt["privacy"]["dataset_total_epsilon"]
    account = client.get(f"/v1/populations/{wanted['population']}")
    figures |= {"epsilon of both rounds in the receipt": total, "of both by dp-accounting alone": both}
    # Later rounds are chosen after earlier ones were seen, so the account quotes the larger of two figures.
    adds_up = total == account["spent"] >= both
    figures |= {"budget": account["budget"]["epsilon"], "spent": account["spent"], "left": account["left"]}
    yield Finding("a second round from the first one's result: both are composed", wanted, figures, sound and adds_up)
    loud = {**{name: value for name, value in wanted.items() if name != "epsilon"}, "noise_multiplier": 0.5}
    said = refusal(lambda: client.post("/v1/rounds", loud))
    held = said["status"] == 409 and said.get("left") == account["left"]
    yield Finding("a round that would overspend is refused when it is opened, with what is left", loud, said, held)


def put(client: Client, opened: str, name: str, update: Mapping[str, Any]) -> Json:
    """Send a client's update."""
    answer: Json = client.put(f"/v1/rounds/{opened}/updates/{name}", save(dict(update)))
    return answer


def _closed(client: Client, wanted: Json, opened: str, updates: Sequence[Mapping[str, Any]]) -> Done:
    """Send every update, close, and wait for the aggregate."""
    for number, update in enumerate(updates):
        put(client, opened, f"ward-{number:04d}", update)
    return finished(client, wanted, client.post(f"/v1/rounds/{opened}/close"))


def update_of(number: int, turn: int = 0) -> Update:
    """What a made-up client sends: a way that all share and one of its own, about half of them longer than the clip."""
    shared, own = np.random.default_rng(_SEED), np.random.default_rng([_SEED, turn, number])
    length = own.uniform(0.2, 0.8) / math.sqrt(2 * sum(math.prod(shape) for shape in SHAPES.values()))
    return {
        name: ((shared.normal(size=shape) + own.normal(size=shape)) * length).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def mean_of(updates: Sequence[Update]) -> dict[str, npt.NDArray[np.float64]]:
    """What a round returns but for its noise: each clipped as one vector, summed, over the expected number."""
    total = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for one in updates:
        norm = math.sqrt(sum(float(np.square(part.astype(np.float64)).sum()) for part in one.values()))
        for name, part in one.items():
            total[name] += part.astype(np.float64) * min(1.0, CLIP / norm)
    return {name: part / EXPECTED for name, part in total.items()}


def release(done: Done, found: Mapping[str, Any], mean: Values) -> tuple[dict[str, Any], bool]:
    """The figures of one round, and whether its noise is what the receipt says and its epsilon what others count."""
    privacy = done.receipt["privacy"]
    scale = privacy["noise_multiplier"] * CLIP / EXPECTED
    noise = np.concatenate([(found[name].astype(np.float64) - mean[name]).ravel() for name in sorted(mean)]) / scale
    statistic = float(np.square(noise).sum())
    low, high = (float(stats.chi2.ppf(share, len(noise))) for share in _NOISY)
    alone = outsider.in_hundredths(outsider.epsilon(privacy))
    figures = {
        "values": len(noise),
        "epsilon in the receipt": privacy["epsilon"],
        "by dp-accounting alone": alone,
        "delta": privacy["delta"],
        "noise multiplier": privacy["noise_multiplier"],
        "spread of the noise over the receipt's": round(math.sqrt(statistic / len(noise)), 4),
        "unit": privacy["unit"],
    }
    return figures, low <= statistic <= high and alone == privacy["epsilon"]


STEP = Step("aggregate", "rounds of many clients", "`aggregate` with uploaded updates", walk)
