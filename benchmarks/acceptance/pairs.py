"""Emoji and their names, found from each other: against ridge regression on thumbnails. Knows no other step."""

from collections.abc import Iterator
from typing import Any

from benchmarks.acceptance.ridge import recall_at_10
from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import Walk
from benchmarks.servers import upload
from benchmarks.shared_data import at_hand

ASKED = 0.50
RIDGE = 0.525
"""The baseline as the shared data's README and the issue have it."""


def walk(place: Walk) -> Iterator[Finding]:
    """Train the dual encoder, nothing chosen, and read recall off the receipt of the exported file."""
    archive = at_hand("pairs/emoji.zip")
    training = {"epochs": 20, "batch_size": 64, "learning_rate": 2e-3, "max_length": 32}
    body: dict[str, Any] = {
        "task": "text_image_pairs",
        "dataset": upload(place.client, archive, "text_image_pairs"),
        "training": {**training, "max_steps": 2} if place.quick else training,
    }
    quality = place.run(body).receipt["quality"]
    there, back = quality["image_to_text"], quality["text_to_image"]
    recall = float(there["recall_at_10"]["exported"])
    came = {
        "recall at 10, picture to text": recall,
        "its 95 % interval": quality["exported"]["ci95"],
        "recall at 1 and 5, picture to text": [there[f"recall_at_{k}"]["exported"] for k in (1, 5)],
        "recall at 1, 5 and 10, text to picture": [back[f"recall_at_{k}"]["exported"] for k in (1, 5, 10)],
        "test rows": quality["exported"]["n"],
    }
    yield Finding("recall at 10 from picture to text of at least .50", body, came, place.quick or recall >= ASKED)
    here = recall_at_10(archive)
    beside = {
        "recall at 10, ours": recall,
        "ridge, as told beside the data": RIDGE,
        "ridge, measured here": round(here, 4),
    }
    beaten = recall > max(RIDGE, here)
    yield Finding("above ridge regression on thumbnails", None, beside, place.quick or beaten)


STEP = Step(
    "pairs",
    "text-image pairs",
    "a `text_image_pairs` job on emoji with recall at 10 of at least .50 from picture to text (ridge on thumbnails"
    " reaches .525: beat it if you can, and say how)",
    walk,
)
