"""A language model on brown with adapters and packed rows, against the untuned base. Knows no other step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import Walk
from benchmarks.machine import has_bf16
from benchmarks.servers import upload
from benchmarks.shared_data import SPLITS, at_hand

# Characters of each split that are read: scoring is three passes over the test rows, which is what takes the time.
_WHOLE = {"train": 1_000_000, "valid": 30_000, "test": 60_000}
_TINY = {"train": 6_000, "valid": 1_500, "test": 3_000}


def excerpt(source: Path, characters: int) -> str:
    """The beginning of a text, to the end of its last whole line."""
    return source.read_text(encoding="utf-8")[:characters].rpartition("\n")[0] + "\n"


def walk(place: Walk) -> Iterator[Finding]:
    """Train on a million characters for some steps, and score the same test rows before and after."""
    sizes, folder, ids = (_TINY if place.quick else _WHOLE), place.scratch("brown"), {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        path.write_text(excerpt(at_hand(f"lm/brown/{split}.txt"), sizes[split]), encoding="utf-8")
        ids[split] = upload(place.client, path, "causal_lm")
    training = {"epochs": 1, "batch_size": 8, "max_length": 256, "max_steps": 24}
    small = {"epochs": 1, "batch_size": 1, "max_length": 64, "max_steps": 1}
    body: dict[str, Any] = {
        "task": "causal_lm",
        "dataset": ids,
        "instructions": [19, 12, *([26] if has_bf16() else [])],
        "training": small if place.quick else training,
    }
    done = place.run(body)
    quality = done.receipt["quality"]
    base, tuned = quality["base"], quality["exported"]
    packed = next(one["effects"] for one in done.receipt["plan"] if one["number"] == 12)
    came = {
        "bits per byte of the untuned base": base["value"],
        "bits per byte of the tuned file": tuned["value"],
        "gain": base["gain"]["value"],
        "gain, 95 % interval": base["gain"]["ci95"],
        "perplexity before and after": [base["perplexity"], quality["perplexity"]["exported"]],
        "test rows": tuned["n"],
        "steps": done.job["progress"]["step"],
        "fill of the packed rows": packed.get("fill"),
    }
    better = tuned["value"] < base["value"] and base["gain"]["ci95"][0] > 0
    yield Finding("bits per byte below the untuned base on the same rows", body, came, place.quick or better)


STEP = Step(
    "lm",
    "a language model with adapters and packed rows",
    "a `causal_lm` job on brown with LoRA and packing that lowers bits per byte against the base model",
    walk,
)
