"""Dropout with cheap draws: the fates are fair, the mean is exact, and attention without dropout is PyTorch's own."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import dropout
from engine.dropout import cheap_draws

CPU = torch.device("cpu")
N = 200_000


def dropped(p: float, seed: int = 3, size: int = N) -> Tensor:
    torch.manual_seed(seed)
    with cheap_draws(CPU):
        return nn.functional.dropout(torch.ones(size), p, training=True)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_were_asked_for(p: float) -> None:
    out = dropped(p)
    share = float((out == 0).float().mean())
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / N)
    kept = out[out != 0]
    assert float(kept.min()) == float(kept.max()) == pytest.approx(1 / (1 - p), rel=1e-4)
    # What is kept weighs exactly as much as its probability takes away.
    fates = 1 << 16
    assert float(kept[0]) == pytest.approx(fates / (fates - round(p * fates)), rel=1e-6)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8])
def test_neighbours_know_nothing_of_each_other(lag: int) -> None:
    """Four fates come out of one draw, so those are looked at too."""
    fate = (dropped(0.5) == 0).float() - 0.5
    correlation = float((fate[lag:] * fate[:-lag]).mean() / fate.var())
    assert abs(correlation) < 5 / math.sqrt(N)


def test_a_seed_gives_the_same_fates_and_the_next_call_others() -> None:
    assert torch.equal(dropped(0.1), dropped(0.1))
    assert not torch.equal(dropped(0.1), dropped(0.1, seed=4))
    torch.manual_seed(3)
    with cheap_draws(CPU):
        first, second = (nn.functional.dropout(torch.ones(N), 0.1, training=True) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (5, 4, 3)])
def test_shape_and_type_stay(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with cheap_draws(CPU):
        out = nn.Dropout(0.3)(torch.ones(shape, dtype=dtype))
    assert (out.shape, out.dtype) == (torch.Size(shape), dtype)


def test_the_gradient_is_dropped_alike() -> None:
    x = torch.randn(1000, requires_grad=True)
    with cheap_draws(CPU):
        out = nn.Dropout(0.4)(x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.allclose(out, x * x.grad)
    assert 300 < int((x.grad == 0).sum()) < 500


def test_in_place_and_where_nothing_is_drawn() -> None:
    x = torch.ones(100)
    with cheap_draws(CPU):
        assert nn.functional.dropout(x, 0.5, training=False) is x
        assert torch.equal(nn.functional.dropout(x, 0.0, training=True), x)
        assert torch.equal(nn.functional.dropout(x, 1.0, training=True), torch.zeros(100))
        assert float(nn.functional.dropout(x, 1 - 1e-9, training=True).isfinite().all())
        with pytest.raises(ValueError, match="dropout probability"):
            nn.functional.dropout(x, 1.5, training=True)
        out = nn.functional.dropout(x, 0.5, training=True, inplace=True)
    assert out is x
    assert 0 < int((x == 0).sum()) < 100


def test_outside_of_the_context_pytorch_draws() -> None:
    torch.manual_seed(3)
    assert not torch.equal(nn.functional.dropout(torch.ones(N), 0.1), dropped(0.1))


def masks() -> dict[str, dict[str, Any]]:
    padding = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    padding[1, ..., 4:] = False
    return {
        "none": {},
        "padding": {"attn_mask": padding},
        "added": {"attn_mask": torch.zeros(2, 1, 6, 6).masked_fill(~padding, -1e4)},
        "causal": {"is_causal": True},
        "scaled": {"scale": 0.3},
    }


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("groups", [1, 2])
def test_attention_is_pytorchs_where_all_are_kept(
    monkeypatch: pytest.MonkeyPatch, name: str, half: bool, groups: int
) -> None:
    monkeypatch.setattr(dropout, "_kept", lambda like, p: torch.ones_like(like))
    torch.manual_seed(0)
    query = torch.randn(2, 4, 6, 8)
    key, value = torch.randn(2, 2, 4 // groups, 6, 8)
    options = masks()[name] | {"enable_gqa": groups > 1}
    attend: Callable[..., Tensor] = nn.functional.scaled_dot_product_attention
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        plain = attend(query, key, value, **options)
        with cheap_draws(CPU):
            ours = attend(query, key, value, dropout_p=0.1, **options)
    assert ours.dtype == plain.dtype
    assert torch.allclose(ours, plain, atol=3e-2 if half else 1e-5)


def test_attention_drops_weights_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, 4, 8)
    attend: Callable[..., Tensor] = nn.functional.scaled_dot_product_attention
    plain = attend(query, key, value)
    with cheap_draws(CPU):
        draws = torch.stack([attend(query, key, value, dropout_p=0.3) for _ in range(4000)])
    assert not torch.equal(draws[0], draws[1])
    spread = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - plain).abs() < 5 * spread + 1e-6).all())


@pytest.mark.parametrize("of_bools", [True, False], ids=["bools", "minus infinity"])
def test_a_row_that_is_masked_as_a_whole_is_zero(of_bools: bool) -> None:
    query, key, value = torch.randn(3, 1, 1, 4, 8).requires_grad_().unbind()
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    with cheap_draws(CPU):
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, mask if of_bools else torch.zeros(4, 4).masked_fill(~mask, -math.inf), dropout_p=0.1
        )
    assert bool((out[..., 2, :] == 0).all())
    (gradient,) = torch.autograd.grad(out.sum(), query)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_large_scores_in_half_a_format_stay_apart(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Against fp64 on the same rounded inputs: only the last product and its result are in the half format."""
    monkeypatch.setattr(dropout, "_kept", lambda like, p: torch.ones_like(like))
    torch.manual_seed(0)
    query, key, value = (
        (torch.randn(3, 2, 4, 32, 64) * torch.tensor([6.0, 6.0, 1.0]).view(3, 1, 1, 1, 1)).to(dtype)
    ).unbind()
    exact = nn.functional.scaled_dot_product_attention(query.double(), key.double(), value.double())
    with cheap_draws(CPU):
        ours = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=0.1)
        huge = nn.functional.scaled_dot_product_attention(query * 50, key * 50, value, dropout_p=0.1)
    assert float((ours - exact).abs().max()) < 0.02
    assert bool(huge.isfinite().all())


def test_a_mask_beside_causal_is_refused_as_pytorch_does() -> None:
    query = torch.randn(1, 1, 4, 8)
    mask = torch.ones(4, 4, dtype=torch.bool)
    with cheap_draws(CPU), pytest.raises(RuntimeError, match="is_causal"):
        nn.functional.scaled_dot_product_attention(query, query, query, mask, dropout_p=0.1, is_causal=True)


def test_each_example_under_vmap_has_fates_of_its_own() -> None:
    with cheap_draws(CPU):
        out = torch.func.vmap(lambda one: nn.functional.dropout(one, 0.5), randomness="different")(torch.ones(2, N))
    assert not torch.equal(out[0], out[1])


def test_attention_learns_in_fp32_under_autocast_and_answers_in_its_format() -> None:
    query, key, value = (torch.randn(2, 2, 5, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    mask = torch.zeros(2, 1, 5, 5, dtype=torch.bfloat16).masked_fill(torch.ones(5, 5).triu(1) > 0, -1e9)
    attend = nn.functional.scaled_dot_product_attention
    query.requires_grad_()
    with cheap_draws(CPU), torch.autocast("cpu", torch.bfloat16):
        found = attend(query, key, value, mask)
        with torch.no_grad():
            rounded = attend(query, key, value, mask)
    assert (found.dtype, rounded.dtype) == (torch.bfloat16, torch.bfloat16)
    exact = attend(query, key, value, mask.float())
    assert torch.equal(found, exact.bfloat16()), "rounded once, at the end"
    assert not torch.equal(rounded, exact.bfloat16())
