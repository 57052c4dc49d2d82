"""Attention of packed rows, document by document: positions that start again tell them apart. Knows no instruction.

A row with one mask over it computes every score between two documents and throws it away. Cut, it costs the sum of the
squares of the documents' lengths and not the square of the row's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from engine.ports import device_of

BY_DOCUMENT = "by_document"
_WINDOWS = ("sliding_window", "attention_chunk_size")  # masks that are more than causal


def can_go_by_document(model: nn.Module) -> bool:
    """Whether the model attends by PyTorch's attention to all that stands before, on a processor.

    Elsewhere one masked product is cheaper than many small ones.
    """
    config: Any = model.config
    plain = not any(getattr(one, name, None) for one in (config, *model.modules()) for name in _WINDOWS)
    return device_of(model).type == "cpu" and plain and config._attn_implementation == "sdpa"


def attend(model: nn.Module, how: str) -> str:
    """Let a transformers model attend so, and say how it did before.

    `BY_DOCUMENT`: a single row attends document by document, by its `position_ids`; anything else as by PyTorch's
    attention. No mask of the rows is made then, so padding must stand behind the tokens.
    """
    chooser: Any = model
    before: str = chooser.config._attn_implementation
    chooser.set_attn_implementation(how)
    return before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """As transformers asks for it: (batch, heads, tokens, width) to (batch, tokens, heads, width)."""
    if position_ids is None or attention_mask is not None or len(query) != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, position_ids=position_ids, **named)
    lengths = _lengths(position_ids)
    documents = zip(*(one.split(lengths, dim=2) for one in (query, key, value)), strict=True)
    found = [sdpa_attention_forward(module, q, k, v, None, **named)[0] for q, k, v in documents]
    return torch.cat(found, dim=1), None


def _lengths(position_ids: Tensor) -> list[int]:
    """Tokens of each document of a row; `position_ids` (1, total)."""
    starts = torch.cat([(position_ids[0] == 0).nonzero()[:, 0].cpu(), torch.tensor([position_ids.shape[1]])])
    return starts.diff().tolist()


AttentionInterface.register(BY_DOCUMENT, _attend)
