"""The next token of a text, or of the assistant's turns in a conversation. Knows decoders in the Hugging Face layout.

A row is a whole text. Training takes it in parts of `max_length` tokens, scores go through it in the same parts and sum
up; each token but the first is a target once. What stands before a part is not seen in it.
"""

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import TemplateError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerFast

from engine.conversations import Message, messages_of, rendered
from engine.decoders import config_of
from engine.errors import InvalidData
from engine.models import Base
from engine.parts import NO_TARGET, Parts, inside, part, spans, token_bytes
from engine.ports import Batch, Cost, Example, Payload, Samples, text_of
from engine.rows import Rows
from engine.tasks.decoder_vocabulary import smaller_tokenizer, trim_decoder
from engine.tasks.likelihood import Likelihood
from engine.token_loss import IGNORED, token_losses
from engine.vocabulary import Numbers, numbers, renumber, renumbered_ids, special_ids

# What config.json has of us at its top level, which transformers must not take for its own.
OWN_KEYS = ("task", "max_length", "preprocess", "chat")
_TOKENS_AT_ONCE = 4096  # without gradients: so many tokens go through the model together


class CausalLM(Likelihood):
    """A decoder over one base model; `chat`: rows are conversations."""

    name: ClassVar[str] = "causal_lm"
    formats: ClassVar[tuple[str, ...]] = ("safetensors", "gguf", "peft")
    default_model: ClassVar[str] = "smollm2-135m"
    labels: tuple[str, ...] = ()

    def __init__(self, base: Base, max_length: int, chat: bool = False) -> None:
        self.folder = _folder(base)
        self.pretrained = base.pretrained
        self.chat = chat
        self.config = plain_config(self.folder)
        self.max_length = max(2, min(max_length, int(self.config.max_position_embeddings)))
        self._moved: Numbers | None = None  # from old ids to new ones, once the vocabulary was trimmed
        self._use(PreTrainedTokenizerFast.from_pretrained(self.folder))
        if chat and not self.tokenizer.chat_template:
            raise InvalidData(
                f"{base.name} has no chat template, so conversations cannot be written for it",
                remedy="choose a base model with a chat template, or upload texts",
            )

    def _use(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer: Any = tokenizer  # as transformers types it: by what it was asked for
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.backend_tokenizer.no_truncation()
        self._special = np.array(sorted(self.tokenizer.all_special_ids), dtype=np.int64)
        self.pad = int(self.tokenizer.pad_token_id or 0)

    @classmethod
    def open(cls, base: Base, labels: Sequence[str], rows: Rows, max_length: int) -> "CausalLM":
        """Open the task for a base and the kind of rows at hand."""
        return cls(base, max_length, rows.chat)

    @classmethod
    def reopen(cls, folder: Path) -> "CausalLM":
        """Open the task on a folder that `describe` wrote into."""
        own = own_keys(folder)
        return cls(Base(folder.name, folder), int(own["max_length"]), bool(own.get("chat")))

    @classmethod
    def check(cls, rows: Rows) -> None:
        """Nothing to refuse yet: whether a row has a target is known once it is encoded."""

    @classmethod
    def cost(cls, base: Base, max_length: int) -> Cost:
        """For a row of `max_length` tokens, every expert counted; weights lie on the meta device, so none are read."""
        config = config_of(_folder(base))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        weights = sum(weight.numel() for weight in model.parameters())
        head = config.vocab_size * config.hidden_size
        looked_up = 0 if config.tie_word_embeddings else head  # embeddings of their own multiply nothing
        tokens = max(1, min(max_length, int(config.max_position_embeddings)))
        layer = 16 * config.hidden_size + 2 * config.num_attention_heads * tokens
        return Cost(weights, 2.0 * (weights - looked_up) * tokens, 4 * tokens * config.num_hidden_layers * layer)

    def build(self) -> nn.Module:
        """The pretrained decoder in fp32."""
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            self.folder,
            config=copy.deepcopy(self.config),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
        # A base's own may not pass the check of saving; it travels as the file that it is.
        vars(model)["generation_config"] = GenerationConfig(**self._ends())
        return model

    def encode(self, payloads: Sequence[Payload]) -> list[Example]:
        """(2, length) int32: token ids, and for each target the bytes of UTF-8 that it stands for, else -1.

        A text gets the special tokens that the model's tokenizer adds by itself; those of a conversation are written by
        the template. A special token stands for no bytes.
        """
        texts = [text_of(payload) for payload in payloads]
        learned: list[list[tuple[int, int]]] | None = None
        if self.chat:
            written = [rendered(self._render, messages_of(text)) for text in texts]
            texts, learned = [text for text, _ in written], [turns for _, turns in written]
        encodings = self.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=not self.chat)
        examples = []
        for number, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            ids = np.array(encoding.ids, dtype=np.int32)
            offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            sizes = np.where(np.isin(ids, self._special), 0, token_bytes(text, offsets))
            if learned is not None:
                sizes = np.where(inside(offsets, learned[number]), sizes, NO_TARGET)
            sizes[:1] = NO_TARGET
            examples.append(np.stack([ids, sizes.astype(np.int32)]))
        return examples

    @property
    def vocabulary(self) -> Tokenizer:
        """The tokenizer inside that of transformers."""
        found: Tokenizer = self.tokenizer.backend_tokenizer
        return found

    @property
    def special(self) -> set[int]:
        """The ids that configuration and tokenizer name."""
        return special_ids(self.config) | set(self._special.tolist())

    def read(self, example: Example) -> Sequence[int]:
        """The token ids of a text, or of a part of one."""
        found: list[int] = example[0].tolist()
        return found

    def tokens(self, payload: Payload) -> Sequence[str]:
        """The whole text's tokens, or those of a conversation as the template writes it."""
        found: list[str] = self.tokenizer.convert_ids_to_tokens(self.read(self.encode([payload])[0]))
        return found

    def trim(self, model: nn.Module, kept: Sequence[int]) -> int:
        """Keep these ids alone, numbered anew in their order; how many rows of the embedding went."""
        self._moved = numbers(kept)
        renumber(self.config, self._moved)
        self._use(smaller_tokenizer(self.tokenizer, kept))
        gone = trim_decoder(model, kept)
        vars(model)["generation_config"] = GenerationConfig(**self._ends())
        return gone

    def cut(self, examples: Sequence[Example]) -> tuple[npt.NDArray[np.int64], Sequence[Example]]:
        """The parts of `max_length` tokens that hold a target, and which example, (n,), each is of.

        Raises:
            InvalidData: where there is none.
        """
        found = [
            (number, start, stop)
            for number, example in enumerate(examples)
            for start, stop in spans(example.shape[1], self.max_length)
            if (example[1, start + 1 : stop] != NO_TARGET).any()
        ]
        if not found and len(examples):
            raise InvalidData(
                "no training row has a token to learn: texts of one token, or turns that the chat template rewrites",
                remedy="give longer texts, or another base model",
            )
        table = np.array(found, dtype=np.int64).reshape(-1, 3)
        return table[:, 0], Parts(examples, table)

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """Tokens an example, (n,)."""
        return np.array([example.shape[1] for example in examples], dtype=np.int64)

    def collate(self, examples: Sequence[Example], labels: Sequence[int]) -> Batch:
        """Parts of at most `max_length` tokens, (parts, longest) int64: `input_ids`, `attention_mask`, `labels` (the
        ids of targets, else -100) and `target_bytes`; `rows` (parts,) where an example has several: which it is of.
        """
        cut = [
            (row, part(example, *span))
            for row, example in enumerate(examples)
            for span in spans(example.shape[1], self.max_length)
        ]
        shape = (len(cut), max((one.shape[1] for _, one in cut), default=1))
        ids, mask = np.full(shape, self.pad, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        targets, sizes = np.full(shape, IGNORED, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for place, (_, one) in enumerate(cut):
            length = one.shape[1]
            ids[place, :length], mask[place, :length] = one[0], 1
            targets[place, :length] = np.where(one[1] == NO_TARGET, IGNORED, one[0])
            sizes[place, :length] = np.maximum(one[1], 0)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": targets, "target_bytes": sizes}
        if len(cut) > len(examples):
            batch["rows"] = np.array([row for row, _ in cut], dtype=np.int64)
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss in nats of each token from its predecessors, (parts, longest - 1) fp32; 0 where none is a target.

        Padding stands behind the tokens, where a causal model does not see it, so no mask of the rows is passed on: it
        would cost the faster attention. `position_ids` are, and an additive `attention_mask` of four axes.
        """
        parts, length = batch["input_ids"].shape
        if torch.is_grad_enabled() or not parts:
            return self._token_losses(model, batch)
        at_once = max(1, _TOKENS_AT_ONCE // length)
        pieces = [
            self._token_losses(model, {name: value[first : first + at_once] for name, value in batch.items()})
            for first in range(0, parts, at_once)
        ]
        return torch.cat(pieces)

    def _token_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        head = model.get_output_embeddings()  # type: ignore[operator]  # of every transformers model, adapters or not
        return token_losses(head, self.states(model, batch), batch["labels"], int(self.config.vocab_size))

    def states(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the output layer reads, (parts, longest, width)."""
        mask = batch.get("attention_mask")
        found: Tensor = model.get_decoder()(  # type: ignore[operator]
            input_ids=batch["input_ids"],
            attention_mask=mask if mask is not None and mask.dim() == 4 else None,
            position_ids=batch.get("position_ids"),
            use_cache=False,  # with a cache, packed documents see each other
        ).last_hidden_state
        return found

    def exportable(self, model: nn.Module) -> nn.Module:
        """The decoder in evaluation mode."""
        return model.eval()

    def samples(self, payloads: Sequence[Payload]) -> Samples:
        """Parts of two rows; batch and sequence are free."""
        batch = self.collate(self.encode(payloads), [0] * len(payloads))
        return Samples({"input_ids": batch["input_ids"]}, {"input_ids": {0: "batch", 1: "sequence"}})

    def describe(self, folder: Path, model: nn.Module, preprocess: Sequence[Mapping[str, Any]]) -> None:
        """config.json, labels.json (none), the tokenizer's files with the chat template, and generation_config.json."""
        config = json.loads(vars(model)["config"].to_json_string(use_diff=True))
        config |= {"architectures": [type(model).__name__], "dtype": "float32"}
        own: dict[str, Any] = {"task": self.name, "max_length": self.max_length, "preprocess": list(preprocess)}
        own |= {"chat": True} if self.chat else {}
        (folder / "config.json").write_text(json.dumps({**config, **own}, indent=2))
        (folder / "labels.json").write_text("[]")
        self.tokenizer.save_pretrained(folder)
        generation = self.folder / "generation_config.json"
        if not generation.is_file():
            (folder / generation.name).write_text(json.dumps(self._ends(), indent=2))
        elif self._moved is None:
            shutil.copyfile(generation, folder / generation.name)
        else:
            own = json.loads(generation.read_text(encoding="utf-8"))
            (folder / generation.name).write_text(json.dumps(own | renumbered_ids(own, self._moved), indent=2))

    def _ends(self) -> dict[str, Any]:
        ends = ("bos_token_id", "eos_token_id", "pad_token_id")
        return {name: value for name in ends if (value := getattr(self.config, name, None)) is not None}

    def _render(self, messages: Sequence[Message], speaks_next: bool) -> str:
        plain = [{"role": one["role"], "content": one["content"]} for one in messages]
        try:
            text = self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=speaks_next)
        except TemplateError as error:
            raise InvalidData(
                f"the chat template of this model refuses a conversation: {error}",
                remedy="mend the order of its roles, or choose another base model",
            ) from error
        return str(text)


def own_keys(folder: Path) -> dict[str, Any]:
    """What `describe` has written into a folder's config.json of our own."""
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {key: content[key] for key in OWN_KEYS if key in content}


def plain_config(folder: Path) -> PreTrainedConfig:
    """A folder's configuration without what we have written into it."""
    config = config_of(folder)
    for key in OWN_KEYS:
        vars(config).pop(key, None)
    return config


def _folder(base: Base) -> Path:
    if base.folder is None:
        raise InvalidData(f"{base.name} writes no text", remedy="choose smollm2-135m or a folder with a decoder")
    return base.folder
