"""Instruction 20 against tables by hand, a resumed run, and the mutations that its definition names."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidPlan
from engine.instructions.gradients.i20_warmup_schedule import WarmupSchedule
from engine.plan import Plan
from engine.run import Run
from engine.spec import Spec

NO_RUN = cast(Run, None)
SHARES = st.floats(0, 0.5)


def _factors(total: int, **parameters: Any) -> list[float]:
    chosen = WarmupSchedule(**parameters)
    return [chosen.schedule(NO_RUN, step, total) for step in range(total)]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"shape": "linear"}, [1 / 3, 2 / 3, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9, 0]),
        ({"shape": "cosine"}, [1 / 3, 2 / 3, 1, *(0.5 + 0.5 * math.cos(math.pi * i / 9) for i in range(1, 10))]),
        (
            {"shape": "wsd", "decay": 1 / 3, "decay_shape": "linear", "floor": 0.2},
            [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2],
        ),
        ({"shape": "wsd", "decay": 1 / 3}, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0]),
    ],
)
def test_twelve_steps_with_three_of_warm_up_are_those_of_the_table(
    parameters: dict[str, Any], expected: list[float]
) -> None:
    assert _factors(12, warmup=0.25, **parameters) == pytest.approx(expected)


@given(st.integers(2, 300), SHARES, st.floats(0, 1), st.sampled_from(["linear", "cosine"]))
def test_the_peak_is_reached_once_and_the_last_step_has_the_floor(
    total: int, warmup: float, floor: float, shape: str
) -> None:
    factors = _factors(total, warmup=warmup, floor=floor, shape=shape)
    assert max(factors) == 1.0
    assert factors[-1] == pytest.approx(floor if round(warmup * total) < total else 1.0)
    if floor < 0.9:
        assert sum(one == 1.0 for one in factors) == 1
    top = factors.index(1.0)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[0] > 0, "no step is wasted"


@given(st.integers(1, 300), SHARES, st.floats(0, 0.5), st.floats(0, 0.9), st.sampled_from(["linear", "sqrt"]))
def test_a_plateau_lies_between_the_ends_of_wsd(
    total: int, warmup: float, decay: float, floor: float, decay_shape: str
) -> None:
    factors = _factors(total, shape="wsd", warmup=warmup, decay=decay, floor=floor, decay_shape=decay_shape)
    rising = max(1, round(warmup * total))
    falling = min(math.ceil(decay * total), total - rising)
    assert factors[rising - 1 : total - falling] == [1.0] * (total - falling - rising + 1)
    assert all(one < 1.0 for one in factors[total - falling :])
    assert factors[-1] == pytest.approx(floor if falling else 1.0)


def test_two_half_runs_give_the_rates_of_a_whole_one() -> None:
    whole = _factors(40)
    fresh = WarmupSchedule.model_validate(WarmupSchedule().model_dump())
    assert [fresh.schedule(NO_RUN, step, 40) for step in range(20, 40)] == whole[20:]


def test_a_single_step_has_the_full_rate() -> None:
    assert _factors(1) == [1.0]
    assert _factors(1, warmup=0.0, shape="wsd", decay=1.0) == [1.0]


def test_ends_that_overlap_are_refused_with_what_would_fit() -> None:
    asked: dict[str, Any] = {"name": "warmup_schedule", "shape": "wsd", "warmup": 0.4, "decay": 0.7}
    spec = Spec.model_validate({"task": "text_classification", "dataset": "a", "instructions": [asked]})
    with pytest.raises(InvalidPlan) as refused:
        Plan.of(spec)
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [
        ("/instructions/0/decay", "overlapping_shares")
    ]
    assert "0.6" in refused.value.faults[0].remedy


def test_the_report_gives_the_peak_and_the_last_rate() -> None:
    run = SimpleNamespace(
        optimizer=SimpleNamespace(param_groups=[{"initial_lr": 0.02}]), clock=SimpleNamespace(total=50)
    )
    reported = WarmupSchedule(floor=0.1).report(cast(Run, run))
    assert reported == pytest.approx({"peak_rate": 0.02, "last_rate": 0.002})
