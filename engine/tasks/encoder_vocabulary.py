"""What the tasks share whose encoder reads token ids of the library tokenizers: a vocabulary, and how it shrinks.

Knows no base model and no rows.
"""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from engine.embeddings import trim_embedding
from engine.ports import Payload, text_of
from engine.vocabulary import Numbers, numbers, renumber, special_ids, trimmed

_READ_OFF_THE_HIGHEST = 2


class EncoderVocabulary:
    """A tokenizer that cuts at `max_length`; `config`: the whole model's, or one with a `text_config` inside."""

    config: Any
    max_length: int
    tokenizer: Tokenizer
    pad: int

    def use(self, tokenizer: Tokenizer) -> None:
        """Read by this tokenizer from now on, cut at `max_length` and unpadded."""
        self.tokenizer = tokenizer
        self.tokenizer.enable_truncation(self.max_length)
        self.tokenizer.no_padding()
        self.pad = int(_of_texts(self.config).pad_token_id or 0)

    @property
    def vocabulary(self) -> Tokenizer:
        """The tokenizer."""
        return self.tokenizer

    @property
    def special(self) -> set[int]:
        """The ids that the configuration names."""
        return special_ids(_of_texts(self.config))

    def tokens(self, payload: Payload) -> Sequence[str]:
        """The text's tokens with the special ones, cut at `max_length`."""
        found: list[str] = self.tokenizer.encode(text_of(payload)).tokens
        return found

    def trim(self, model: nn.Module, kept: Sequence[int]) -> int:
        """Keep these ids alone, numbered anew in their order; how many rows of the embedding went."""
        tower: Any = getattr(model, "text_model", model)
        every = (_of_texts(self.config), _of_texts(vars(model)["config"]), tower.config)
        for config in {id(one): one for one in every}.values():
            _renumber(config, numbers(kept))
        if isinstance(getattr(tower, "eos_token_id", None), int):
            tower.eos_token_id = tower.config.eos_token_id  # which it read off at its making
        self.use(trimmed(self.tokenizer, kept))
        return trim_embedding(tower.get_input_embeddings(), kept)


def _of_texts(config: Any) -> Any:
    """What a configuration says of the part that reads texts."""
    return getattr(config, "text_config", config)


def _renumber(config: Any, new: Numbers) -> None:
    """Write the new ids into a configuration, in place.

    Of CLIP an end of 2 is no token: it tells transformers to read a text off its highest id, which stays the highest.
    """
    highest = config.model_type == "clip_text_model" and config.eos_token_id == _READ_OFF_THE_HIGHEST
    renumber(config, new)
    if highest:
        config.eos_token_id = _READ_OFF_THE_HIGHEST
