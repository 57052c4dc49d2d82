"""What is asked for in these tests."""

from typing import Any


def experiment(dataset: str, **changes: Any) -> dict[str, Any]:
    """A baseline and one treatment with two seeds."""
    return {
        "name": "pruned or not",
        "baseline": {"task": "text_classification", "dataset": dataset, "training": {"epochs": 2}},
        "treatments": [{"name": "edge", "changes": {"instructions": [47], "training": {"batch_size": 8}}}],
        "seeds": [1, 2],
        **changes,
    }
