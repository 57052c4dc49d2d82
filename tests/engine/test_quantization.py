"""The maths of integers against numpy in float64, and the mutations that must not survive."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.quantization import (
    ActivationRange,
    Setting,
    affine,
    dequantize,
    quantize,
    rounded_blocks,
    rounded_weight,
    weight_levels,
    weight_step,
)


def scalar(value: float) -> Tensor:
    return torch.tensor(value)


@given(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32), st.integers(2, 8))
def test_the_error_is_half_a_step_and_zero_is_exact(one: float, other: float, bits: int) -> None:
    low, high = min(one, other), max(one, other)
    step, zero_point = affine(scalar(low), scalar(high), bits)
    assert zero_point.dtype == torch.int32
    assert 0 <= int(zero_point) <= 2**bits - 1
    values = torch.linspace(min(low, 0.0), max(high, 0.0), 101)
    restored = dequantize(quantize(values, step, zero_point, bits), step, zero_point)
    # The zero point is rounded, so the ends of the range may lie half a step outside the levels.
    assert float((values - restored).abs().max()) <= float(step) * 1.01 + 1e-6
    inner = values[(values - min(low, 0.0) > step) & (max(high, 0.0) - values > step)]
    if len(inner):
        restored = dequantize(quantize(inner, step, zero_point, bits), step, zero_point)
        assert float((inner - restored).abs().max()) <= float(step) * 0.5001 + 1e-6
    nothing = torch.zeros(1)
    assert float(dequantize(quantize(nothing, step, zero_point, bits), step, zero_point)) == 0.0


def test_normal_values_use_most_levels_and_lose_a_twelfth_of_a_squared_step() -> None:
    # With the sign of the zero point turned round, all 10,000 of them become one level.
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    step, zero_point = affine(values.min(), values.max(), 8)
    levels = quantize(values, step, zero_point, 8)
    assert len(levels.unique()) > 150
    error = float((values - dequantize(levels, step, zero_point)).square().mean())
    assert error == pytest.approx(float(step) ** 2 / 12, rel=0.05)
    wrong = quantize(values, step, zero_point + 1, 8)
    assert float((values - dequantize(wrong, step, zero_point)).square().mean()) > 5 * error


def test_a_range_away_from_zero_keeps_its_values_apart() -> None:
    values = torch.linspace(3, 4, 50)
    step, zero_point = affine(values.min(), values.max(), 8)
    restored = dequantize(quantize(values, step, zero_point, 8), step, zero_point)
    assert float((values - restored).abs().max()) <= float(step) / 2 + 1e-6
    assert len(restored.unique()) > 40


def test_a_tensor_of_zeros_gives_numbers() -> None:
    step, zero_point = affine(scalar(0.0), scalar(0.0), 8)
    restored = dequantize(quantize(torch.zeros(4), step, zero_point, 8), step, zero_point)
    assert restored.tolist() == [0.0] * 4
    assert torch.isfinite(rounded_weight(torch.zeros(2, 3), 8)).all()
    assert rounded_blocks(torch.zeros(2, 32), 32).tolist() == torch.zeros(2, 32).tolist()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_have_a_symmetric_step_for_each_output(bits: int) -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 2, 6).unsqueeze(1)
    levels, step = weight_levels(weight, bits)
    oracle = np.abs(weight.double().numpy()).max(axis=1) / (2 ** (bits - 1) - 1)
    assert np.allclose(step.numpy(), oracle)
    assert int(levels.abs().max()) == 2 ** (bits - 1) - 1
    restored = levels.float() * step.unsqueeze(1)
    assert (np.abs(weight.numpy() - restored.numpy()) <= oracle[:, None] * 0.5001).all()
    assert torch.allclose(rounded_weight(weight, bits), restored)


def test_the_gradient_passes_straight_through_inside_the_range_and_stops_outside() -> None:
    values = torch.linspace(-2, 2, 41, dtype=torch.float64)
    upstream = torch.linspace(1, 3, 41, dtype=torch.float64)
    rounding = ActivationRange(Setting()).eval()
    rounding.low.fill_(-1.0)
    rounding.high.fill_(1.0)
    given_values = values.float().requires_grad_()
    (rounding(given_values) * upstream.float()).sum().backward()
    step, zero_point = affine(scalar(-1.0), scalar(1.0), 8)
    level = np.rint(values.numpy() / float(step)) + int(zero_point)
    by_hand = np.where((level >= 0) & (level <= 255), upstream.numpy(), 0.0)
    assert given_values.grad is not None
    assert np.allclose(given_values.grad.numpy(), by_hand)
    assert (by_hand == 0).any()
    assert (by_hand != 0).any()


def test_the_gradient_of_a_weight_is_that_of_what_it_is_used_for() -> None:
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(2)).requires_grad_()
    upstream = torch.arange(20.0).view(4, 5)
    (rounded_weight(weight, 4) * upstream).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream)


def test_four_bit_blocks_equal_numpy() -> None:
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(3))
    for row, rounded in zip(weight.numpy(), rounded_blocks(weight, 32).numpy(), strict=True):
        for start in (0, 32):
            block = row[start : start + 32].astype(np.float64)
            step = block[np.abs(block).argmax()] / -8
            oracle = np.clip(np.rint(block / step), -8, 7) * step
            assert np.allclose(rounded[start : start + 32], oracle, atol=1e-6)


def test_padding_does_not_widen_a_range() -> None:
    setting = Setting(padding=torch.tensor([[1, 1, 0], [1, 0, 0]]))
    rounding = ActivationRange(setting).train()
    values = torch.tensor([[[1.0], [-2.0], [99.0]], [[0.5], [-99.0], [99.0]]])
    rounding(values)
    assert (float(rounding.low), float(rounding.high)) == (-2.0, 1.0)
    setting.percentile = 100.0
    other = ActivationRange(setting).train()
    other(values)
    assert (float(other.low), float(other.high)) == (-2.0, 1.0)


@pytest.mark.parametrize("padding", [None, torch.ones(8, 64, dtype=torch.int64)])
def test_percentiles_look_at_every_channel(padding: Tensor | None) -> None:
    values = torch.randn(8, 64, 384, generator=torch.Generator().manual_seed(4))
    values[..., 1] += 20.0  # one of 384 channels: more than a thousandth
    rounding = ActivationRange(Setting(percentile=99.9, padding=padding)).train()
    rounding(values)
    assert float(rounding.high) == pytest.approx(float(torch.quantile(values.flatten(), 0.999)), abs=0.5)
    picture = torch.zeros(2, 16, 64, 64)
    picture[:, 3] = 1.0
    seen = ActivationRange(Setting(percentile=99.0)).train()
    seen(picture)
    assert float(seen.high) == 1.0


def test_a_range_moves_by_its_average_and_forgets_what_it_saw() -> None:
    rounding = ActivationRange(Setting()).train()
    rounding(torch.tensor([-1.0, 3.0]))
    rounding.move(keep=0.9)
    assert float(rounding.high) == pytest.approx(3.0)  # the first batch sets it
    rounding(torch.tensor([-2.0, 1.0]))
    rounding(torch.tensor([-4.0, 2.0]))  # a second chunk of the same step
    rounding.move(keep=0.75)
    assert float(rounding.low) == pytest.approx(0.75 * -1 + 0.25 * -4)
    assert float(rounding.high) == pytest.approx(0.75 * 3 + 0.25 * 2)
    before = float(rounding.high)
    rounding.move(keep=0.5)
    assert float(rounding.high) == before  # nothing was seen since


def test_an_overflow_moves_nothing() -> None:
    rounding = ActivationRange(Setting()).train()
    rounding(torch.tensor([-1.0, 1.0]))
    rounding.move(keep=0.0)
    rounding(torch.tensor([-1.0, float("inf")]))
    rounding.move(keep=0.0)
    assert (float(rounding.high), int(rounding.updates)) == (1.0, 1)
    rounding(torch.tensor([-1.0, 2.0]))
    rounding.move(keep=0.0)
    assert float(rounding.high) == 2.0


def test_evaluation_moves_no_range() -> None:
    rounding = ActivationRange(Setting()).train()
    rounding(torch.tensor([-1.0, 1.0]))
    rounding.move(keep=0.0)
    state = copy.deepcopy(rounding.state_dict())
    rounding.eval()(torch.tensor([-9.0, 9.0]))
    assert all(torch.equal(value, state[name]) for name, value in rounding.state_dict().items())


def test_a_frozen_range_sees_nothing() -> None:
    rounding = ActivationRange(Setting(observing=False)).train()
    rounding(torch.tensor([-9.0, 9.0]))
    rounding.move(keep=0.0)
    assert (float(rounding.low), int(rounding.updates)) == (0.0, 0)


def test_a_lower_step_than_the_least_is_not_given() -> None:
    assert float(weight_step(torch.zeros(1, 4), 8)) > 0
