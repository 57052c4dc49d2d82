"""Dropout on a processor with cheap draws. Knows no model: it stands in for PyTorch's functions while a pass runs.

PyTorch draws each element's fate apart and on one thread, which takes a fifth of a bf16 step. Here one draw of 64 bits
decides four elements, from the same generator, so seeds and snapshots mean what they meant. A probability is rounded to
16 bits, and what is kept is scaled by the rounded one, so the mean is exact.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FATES = 1 << 16
_LEAST = -(1 << 15)


def cheap_draws(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which dropout on a processor draws cheaply; any other device is left alone."""
    return _CheapDraws() if device.type == "cpu" else nullcontext()


class _CheapDraws(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Stand in for dropout and for attention with dropout."""
        stand_in: Callable[..., Any] = _STAND_INS.get(func, func)
        return stand_in(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or not 0 < p < 1:
        return nn.functional.dropout(input, p, training, inplace)
    kept = _kept(input, p)
    return input.mul_(kept) if inplace else input * kept


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as PyTorch defines it; with dropout it has no fused kernel for processors either."""
    if not 0 < dropout_p < 1:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        repeats = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if is_causal:
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
    with torch.autocast("cpu", enabled=False):
        weights = (query * (scale or 1 / math.sqrt(query.size(-1)))) @ key.transpose(-2, -1)
        if attn_mask is not None:
            weights = _masked(weights, attn_mask)
        weights = weights.softmax(-1)
        return (weights * _kept(weights, dropout_p)).to(value.dtype) @ value


def _masked(weights: Tensor, mask: Tensor) -> Tensor:
    # The least number and not minus infinity: a row that is masked as a whole must not become NaN.
    least = torch.finfo(weights.dtype).min
    if mask.dtype == torch.bool:
        return weights.masked_fill(~mask, least)
    return (weights + mask).clamp_min(least)


def _kept(like: Tensor, p: float) -> Tensor:
    """Zeros where an element is dropped, else what keeps the mean."""
    dropped = min(round(p * _FATES), _FATES - 1)
    draws = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    fates = draws.view(torch.int16)[: like.numel()].view(like.shape)
    return fates.ge(_LEAST + dropped).to(like.dtype).mul_(_FATES / (_FATES - dropped))


_STAND_INS: Mapping[Any, Callable[..., Tensor]] = {
    nn.functional.dropout: _dropout,
    nn.functional.scaled_dot_product_attention: _attention,
}
