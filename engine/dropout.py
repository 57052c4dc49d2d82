"""Dropout and attention as a processor computes them fast. Knows no model: it stands in for PyTorch's functions.

PyTorch draws each element's fate apart and on one thread, which shows beside the products of a bf16 step. Here one draw
of 64 bits decides four elements, from the same generator, so seeds and snapshots mean what they meant. A probability is
rounded to 16 bits, and what is kept is scaled by the rounded one, so the mean is exact.

Attention without dropout is left to PyTorch, in fp32 where it learns: on a processor the fused backward pass of torch
2.13 is several times slower in bf16.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
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
    if not 0 < dropout_p < 1 or (is_causal and attn_mask is not None):  # the latter is an error, which PyTorch tells
        attend = partial(nn.functional.scaled_dot_product_attention, scale=scale, enable_gqa=enable_gqa)
        if not torch.is_autocast_enabled("cpu") or not (torch.is_grad_enabled() and query.requires_grad):
            return attend(query, key, value, attn_mask, dropout_p, is_causal)
        mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.float()
        with torch.autocast("cpu", enabled=False):
            found = attend(query.float(), key.float(), value.float(), mask, dropout_p, is_causal)
        return found.to(torch.get_autocast_dtype("cpu"))
    if enable_gqa:
        repeats = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if is_causal:
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
    with torch.autocast("cpu", enabled=False):
        # Scores and softmax in fp32 whatever the inputs are: in half a format large scores lose what tells them apart.
        scores = (query.float() * (scale or 1 / math.sqrt(query.size(-1)))) @ key.float().transpose(-2, -1)
        if attn_mask is None:
            weights = scores.softmax(-1)
            kept = _kept(weights, dropout_p)
        else:
            added, dead = _added(attn_mask, scores.dtype)
            weights = scores.add_(added).softmax(-1)
            kept = _kept(weights, dropout_p).masked_fill(dead, 0)
        return (weights * kept).to(value.dtype) @ value


def _added(mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What the mask adds to the scores, and the rows of which it leaves nothing: zeros there, where softmax has NaN."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -math.inf)
    dead = (mask == -math.inf).all(-1, keepdim=True)
    return mask.masked_fill(dead, 0), dead


def _kept(like: Tensor, p: float) -> Tensor:
    """Zeros where an element is dropped, else what keeps the mean."""
    dropped = min(round(p * _FATES), _FATES - 1)
    draws = torch.randint(-(1 << 63), (1 << 63) - 1, ((like.numel() + 3) // 4,), dtype=torch.int64)
    fates = draws.view(torch.int16)[: like.numel()].view(like.shape)
    return fates.ge(_LEAST + dropped).to(like.dtype).mul_(_FATES / (_FATES - dropped))


_STAND_INS: Mapping[Any, Callable[..., Tensor]] = {
    nn.functional.dropout: _dropout,
    nn.functional.scaled_dot_product_attention: _attention,
}
