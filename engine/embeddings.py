"""The rows of embeddings and output layers that go with a smaller vocabulary. Knows no task and no tokenizer."""

from collections.abc import Sequence

from torch import nn

from engine.vocabulary import numbers


def trim_embedding(embedding: nn.Embedding, kept: Sequence[int]) -> int:
    """Keep these rows of an embedding, in place; how many went."""
    padding, before = embedding.padding_idx, embedding.num_embeddings
    weight = embedding.weight.detach()[list(kept)].clone()
    embedding.weight = nn.Parameter(weight, embedding.weight.requires_grad)
    embedding.num_embeddings = len(kept)
    embedding.padding_idx = None if padding is None else numbers(kept).get(padding)
    return before - len(kept)


def trim_head(head: nn.Linear, kept: Sequence[int], embedding: nn.Embedding | None) -> None:
    """Keep these outputs of a layer, in place, their order that of `trim_embedding`.

    Args:
        embedding: the trimmed one that the layer shares its weights with, where it does.
    """
    rows = list(kept)
    head.weight = (
        nn.Parameter(head.weight.detach()[rows].clone(), head.weight.requires_grad)
        if embedding is None
        else embedding.weight
    )
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[rows].clone(), head.bias.requires_grad)
    head.out_features = len(rows)
