"""51: ranges follow what the layers see, and stop. Its arithmetic is proven in test_quantization."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from engine.errors import InvalidPlan
from engine.evaluate import METRICS
from engine.instructions.quantization_aware_training.i51_dynamic_range import DynamicRange
from engine.plan import Plan
from engine.prepare import begin
from engine.quantized import ranges_of
from engine.run import Run
from engine.spec import Spec
from tests.engine.tiny_run import text_run, trained

QAT = {"name": "quantization_aware_training", "freeze_at": 1.0}


def shown(run: Run, low: float, high: float) -> None:
    """Let every range see two values, and the instruction follow the step."""
    for one in ranges_of(run.model).values():
        one.train()(torch.tensor([low, high]))
    for instruction in run.plan.on("after_step"):
        instruction.after_step(run)


def begun(folder: Path, **parameters: Any) -> Run:
    run = text_run(folder, [QAT, {"name": "dynamic_range", **parameters}])
    begin(run, None)
    run.clock.total = 100_000
    return run


def first(run: Run) -> tuple[float, float]:
    one = next(iter(ranges_of(run.model).values()))
    return float(one.low), float(one.high)


def test_a_stationary_stream_converges_to_its_range(tmp_path: Path) -> None:
    run = begun(tmp_path)
    shown(run, -40.0, 40.0)  # a first batch far off
    drawn = torch.Generator().manual_seed(0)
    for _ in range(600):
        spread = 1 + 0.1 * float(torch.randn((), generator=drawn))
        shown(run, -2 * spread, 3 * spread)
    assert first(run) == pytest.approx((-2.0, 3.0), rel=0.05)


def test_the_ramp_leaves_the_first_batch_behind_in_a_short_run(tmp_path: Path) -> None:
    # At a plain momentum of .99 sixty steps would keep .99**60 = 55 % of the first batch.
    run = begun(tmp_path)
    shown(run, 0.0, 40.0)
    for _ in range(60):
        shown(run, 0.0, 1.0)
    assert first(run)[1] < 1.2


def test_minmax_only_widens_and_symmetric_is_symmetric(tmp_path: Path) -> None:
    run = begun(tmp_path / "a", observer="minmax")
    for low, high in ((-1.0, 2.0), (-3.0, 1.0), (0.0, 0.5)):
        shown(run, low, high)
    assert first(run) == (-3.0, 2.0)
    run = begun(tmp_path / "b", symmetric=True)
    shown(run, -1.0, 4.0)
    assert first(run) == (-4.0, 4.0)


def test_percentiles_leave_outliers_out(tmp_path: Path) -> None:
    run = begun(tmp_path, observer="percentile", percentile=99.0)
    one = next(iter(ranges_of(run.model).values()))
    values = torch.linspace(-1, 1, 10_001)
    values[0] = 1000.0
    one.train()(values)
    assert float(one.high) == pytest.approx(0.98, abs=0.01)


def test_a_run_moves_every_range_and_counts_what_it_clips(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [49, 51], count=100, epochs=2), tmp_path)
    instruction = run.plan.instructions[1]
    effects = instruction.report(run)
    steps = {int(one.updates) for one in ranges_of(run.model).values()}
    # What it moved is what 49 left for it: were that cleared first, no range would have moved.
    assert steps == {int(effects["updates"])}
    assert effects["updates"] == int(0.8 * run.clock.total)
    assert 0 <= effects["clipped_share"] <= effects["clipped_share_worst"] < 0.2
    assert effects["ranges"] == len(ranges_of(run.model))


def test_what_is_told_is_what_the_chosen_ranges_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first epoch scores best and ships, so the ranges of the last tell nothing of the file."""
    scores = iter((1.0, 0.0))
    choice = [{**QAT, "keep": []}, {"name": "dynamic_range", "momentum": 0.5, "observer": "percentile"}]
    run = text_run(tmp_path, choice, count=100, epochs=2, keep="best", learning_rate=1e-2)
    metric = METRICS[run.spec.metric]
    monkeypatch.setitem(METRICS, run.spec.metric, replace(metric, value=lambda _: next(scores)))
    trained(run, tmp_path)
    told = run.plan.instructions[1].report(run)
    shares = DynamicRange()._clipped(run)
    assert (told["clipped_share"], told["clipped_share_worst"]) == (median(shares), max(shares))


def test_one_batch_left_alone_clips_more_than_what_is_tracked(tmp_path: Path) -> None:
    tracked = begun(tmp_path / "tracked")
    frozen = begun(tmp_path / "frozen")
    shown(frozen, -1.0, 1.0)
    for width in (1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0):
        shown(tracked, -width, width)
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))

    def clipped(run: Run) -> float:
        low, high = first(run)
        return float(((values < low) | (values > high)).float().mean())

    assert clipped(frozen) > 0.3
    assert clipped(tracked) < 0.01


def test_it_needs_rounding_layers_with_ranges_of_their_own() -> None:
    for instructions, reason in (
        ([51], "needs fake_quantized"),
        ([51, {"number": 49, "activation": "dynamic"}], "cannot be tracked"),
    ):
        spec = Spec.model_validate({"task": "text_classification", "dataset": "none", "instructions": instructions})
        with pytest.raises(InvalidPlan, match=reason):
            Plan.of(spec, {"pretrained"})
