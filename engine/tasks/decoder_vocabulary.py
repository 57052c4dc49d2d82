"""How a decoder and its tokenizer get by with fewer tokens. Knows the Hugging Face layout, no rows and no training."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerFast

from engine.embeddings import trim_embedding, trim_head
from engine.vocabulary import numbers, renumber, trimmed


def smaller_tokenizer(tokenizer: PreTrainedTokenizerFast, kept: Sequence[int]) -> PreTrainedTokenizerFast:
    """The same tokenizer, its special tokens and its chat template, with these ids alone."""
    found = copy.deepcopy(tokenizer)
    # What it was made with may name ids; the smaller one says itself which tokens were added, and where.
    vars(found).update(_tokenizer=trimmed(tokenizer.backend_tokenizer, kept))
    found.init_kwargs.pop("added_tokens_decoder", None)
    return found


def trim_decoder(model: nn.Module, kept: Sequence[int]) -> int:
    """Keep these tokens' rows of embedding and output layer, tied or not, in place; how many rows went."""
    inside: Any = model  # methods of every transformers model
    embedding, head = inside.get_input_embeddings(), inside.get_output_embeddings()
    tied = head.weight is embedding.weight
    gone = trim_embedding(embedding, kept)
    trim_head(head, kept, embedding if tied else None)
    renumber(inside.config, numbers(kept))
    return gone
