"""A frozen encoder that a head alone is trained on: which weights move, and what the head reads. Knows no run.

Pretraining leaves the pooler and the first token with tasks of their own, and a private training cannot afford the
weights to undo that. So the head reads the mean of the tokens below the last layer, which is made to average them: as
sentence encoders are read, and still BERT's architecture, which others load. With queries of zero every token looks at
all alike, the value is the token itself, and a large factor lets the mean outweigh the token that it is added to; the
layer norms take mean and length off. All of it is a function of the base alone: no row is looked at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertLayer

_OUTWEIGHS = 1024.0
_FEWEST_LAYERS = 2


def in_scope(model: nn.Module, scope: str) -> Iterator[nn.Parameter]:
    """The parameters that a scope trains; adapters chose theirs already. The head is what is fresh in the model.

    Noise grows with the root of the number of weights, so a pooler is no part of the head here.
    """
    base = getattr(model, "base_model_prefix", "")
    for name, weight in model.named_parameters():
        in_head = not name.startswith(f"{base}.")
        if scope in {"full", "lora"} or in_head or (scope == "bias" and name.endswith(".bias")):
            yield weight


@torch.no_grad()
def read_by_a_head(model: nn.Module, length: float | None = None) -> None:
    """Let the encoder hand a head the mean of a text's tokens.

    Args:
        length: of what is handed on, before the pooler's tanh; None: the root of its width, so of variance 1.
    """
    for name, module in model.named_modules():
        if name.endswith("pooler.dense") and isinstance(module, nn.Linear):
            _identity(module)
    layers = [module for module in model.modules() if isinstance(module, BertLayer)]
    if len(layers) >= _FEWEST_LAYERS:
        width = layers[-1].output.LayerNorm.weight.numel()
        _average(layers[-1], 1.0 if length is None else length / width**0.5)


@contextmanager
def same_rows(model: nn.Module) -> Iterator[None]:
    """Within, every pass is over the same rows, so an encoder that is frozen and draws nothing reads them once."""
    encoder: Any = getattr(model, getattr(model, "base_model_prefix", ""), None)
    if not isinstance(encoder, nn.Module) or _may_differ(encoder):
        yield
        return
    read: list[Any] = []
    forward = encoder.forward

    @torch.no_grad()
    def once(*args: Any, **kwargs: Any) -> Any:
        if not read:
            read.append(forward(*args, **kwargs))
        return read[0]

    vars(encoder)["forward"] = once
    try:
        yield
    finally:
        del vars(encoder)["forward"]


def _may_differ(encoder: nn.Module) -> bool:
    draws = any(isinstance(module, nn.Dropout) and module.p > 0 and module.training for module in encoder.modules())
    return draws or any(weight.requires_grad for weight in encoder.parameters())


def _average(layer: BertLayer, scale: float) -> None:
    """Make a layer give every token the mean of all that are not padding, of mean 0 and a deviation of `scale`."""
    attention, last = layer.attention, layer.output
    for zero in (attention.self.query, attention.self.key, layer.intermediate.dense, last.dense):
        nn.init.zeros_(zero.weight)
        nn.init.zeros_(zero.bias)
    _identity(attention.self.value)
    _identity(attention.output.dense, _OUTWEIGHS)
    for norm, deviation in ((attention.output.LayerNorm, 1.0), (last.LayerNorm, scale)):
        nn.init.constant_(norm.weight, deviation)
        nn.init.zeros_(norm.bias)


def _identity(linear: nn.Linear, factor: float = 1.0) -> None:
    """Hand on, times a factor; a layer of two widths stays as it is."""
    if linear.in_features == linear.out_features:
        linear.weight.copy_(factor * torch.eye(linear.in_features))
        nn.init.zeros_(linear.bias)
