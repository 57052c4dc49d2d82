"""What an estimate says of steps and bytes: by what the chosen instructions do, and by no number of theirs."""

from typing import Any

import pytest

from engine.estimate import estimate, estimate_derived
from engine.instructions.gradients.i24_gradient_accumulation import GradientAccumulation
from engine.spec import Spec

ROWS = {"train": 600, "valid": 75, "test": 75}


def _spec(*instructions: Any, **changes: Any) -> Spec:
    body = {"task": "text_classification", "dataset": "none", "instructions": list(instructions), **changes}
    return Spec.model_validate(body)


@pytest.mark.parametrize(
    ("chosen", "steps"),
    [
        ([], 2 * 19),
        ([24], 2 * 5),
        ([{"number": 24, "steps": 8}], 2 * 3),
        ([{"number": 24, "target_items": 100}], 2 * 5),
        ([{"number": 24, "target_items": 8}], 2 * 19),
    ],
)
def test_batches_that_are_merged_are_one_step(chosen: list[Any], steps: int) -> None:
    assert estimate(_spec(*chosen, training={"epochs": 2, "batch_size": 32}), ROWS)["total_steps"] == steps


def test_the_items_of_a_language_model_are_tokens() -> None:
    training = {"epochs": 1, "batch_size": 32, "max_length": 64}
    spec = _spec(task="causal_lm", training=training)
    assert GradientAccumulation(target_items=4096).batches_a_step(spec) == 2


@pytest.mark.parametrize(
    ("chosen", "steps"),
    [
        ([{"number": 43, "steps": 70}], 70),
        ([{"number": 45, "recovery_steps": 9}], 9),
        ([{"number": 45, "recovery_steps": 0}, 47], 0),
        ([{"number": 43, "steps": 70}, {"number": 45, "recovery_steps": 9}], 9),
    ],
)
def test_the_steps_on_a_trained_model_are_told_by_who_takes_them(chosen: list[Any], steps: int) -> None:
    assert estimate_derived(_spec(*chosen, kind="compress"), 75)["total_steps"] == steps


def test_what_rounds_ships_a_byte_a_weight_and_what_trims_does_not() -> None:
    whole, trimmed, rounded, trained = (
        estimate(_spec(*chosen), ROWS)["file_bytes"] for chosen in ([], [48], [47], [49, 51])
    )
    assert whole == trimmed > 3.5 * rounded
    assert rounded == trained
