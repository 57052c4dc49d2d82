"""One label for a text. Knows encoders in the Hugging Face layout; knows no instruction."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig

from engine.archive import SHAPES, load_checkpoint
from engine.errors import InvalidData
from engine.models import Base
from engine.ports import Batch, Cost, Example, Payload, Samples
from engine.rows import Rows
from engine.tasks.classification import Classification
from engine.tasks.encoder_vocabulary import EncoderVocabulary

# Encoders whose first token stands behind the position of padding, so that the first positions are nobody's.
_FIRST_BEHIND_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)


class _Exportable(nn.Module):
    """The encoder as a function of two tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class TextClassification(EncoderVocabulary, Classification):
    """A sequence classifier over one base model and one label set."""

    name: ClassVar[str] = "text_classification"
    formats: ClassVar[tuple[str, ...]] = ("onnx", "peft")
    default_model: ClassVar[str] = "minilm-l6"

    def __init__(self, base: Base, labels: Sequence[str], max_length: int) -> None:
        self.folder = _folder(base)
        self.labels = tuple(labels)
        self.pretrained = base.pretrained
        self.config = AutoConfig.from_pretrained(self.folder, num_labels=len(labels), trust_remote_code=False)
        self.max_length = min(max_length, _positions(self.config))
        self.use(Tokenizer.from_file(str(self.folder / "tokenizer.json")))

    @classmethod
    def open(cls, base: Base, labels: Sequence[str], rows: Rows, max_length: int) -> "TextClassification":
        """Open the task for a base, a label set and the rows at hand."""
        return cls(base, labels, max_length)

    @classmethod
    def reopen(cls, folder: Path) -> "TextClassification":
        """The task of a checkpoint's folder; `build` then gives its weights, in its own shapes."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        return cls(Base(folder.name, folder), labels, int(config["max_length"]))

    @classmethod
    def cost(cls, base: Base, max_length: int) -> Cost:
        """For a text of half of `max_length`; weights are counted on the meta device, so none are read."""
        config = AutoConfig.from_pretrained(_folder(base), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        weights = sum(weight.numel() for weight in model.parameters())
        embedded = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding))
        tokens = max(1, min(max_length, _positions(config)) // 2)
        kept = (
            tokens * config.num_hidden_layers * (16 * config.hidden_size + 2 * config.num_attention_heads * tokens) * 4
        )
        return Cost(weights, 2.0 * (weights - embedded) * tokens, kept)

    def build(self) -> nn.Module:
        """The pretrained encoder in fp32 with a fresh head; of a checkpoint whose shapes are its own, those."""
        if (self.folder / SHAPES).is_file():
            return load_checkpoint(self.folder, _blank(self._own_config()))
        head: int = AutoConfig.from_pretrained(self.folder, trust_remote_code=False).num_labels
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            self.folder,
            config=self._own_config(),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=head != len(self.labels),  # a base may bring a head for other classes
        )
        return model

    def _own_config(self) -> PretrainedConfig:
        """A copy for each model: a pruned one changes its own."""
        own: PretrainedConfig = copy.deepcopy(self.config)
        return own

    def encode(self, payloads: Sequence[Payload]) -> list[Example]:
        """Token ids with the special tokens, cut at `max_length`: (length,) int32."""
        return [
            np.array(encoding.ids, dtype=np.int32)
            for encoding in self.tokenizer.encode_batch_fast([str(text) for text in payloads])
        ]

    def read(self, example: Example) -> Sequence[int]:
        """An example is its token ids."""
        found: list[int] = example.tolist()
        return found

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """Tokens an example, (n,)."""
        return np.array([len(example) for example in examples], dtype=np.int64)

    def collate(self, examples: Sequence[Example], labels: Sequence[int]) -> Batch:
        """`input_ids` and `attention_mask` (batch, longest) int64, `labels` (batch,) int64."""
        longest = max((len(example) for example in examples), default=1)
        ids = np.full((len(examples), longest), self.pad, dtype=np.int64)
        mask = np.zeros((len(examples), longest), dtype=np.int64)
        for row, example in enumerate(examples):
            ids[row, : len(example)] = example
            mask[row, : len(example)] = 1
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return logits

    def exportable(self, model: nn.Module) -> nn.Module:
        """The encoder with plain attention, whose graph has no guards against empty rows."""
        model.set_attn_implementation("eager")  # type: ignore[operator]  # a method of every transformers model
        return _Exportable(model).eval()

    def samples(self, payloads: Sequence[Payload]) -> Samples:
        """Two padded rows: ids and mask as tensors of their own, batch and sequence free."""
        batch = self.collate(self.encode(payloads), [0] * len(payloads))
        free = {0: "batch", 1: "sequence"}
        return Samples(
            {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]},
            {"input_ids": free, "attention_mask": free},
        )

    def describe(self, folder: Path, model: nn.Module, preprocess: Sequence[Mapping[str, Any]]) -> None:
        """config.json, labels.json and tokenizer.json."""
        config = json.loads(self.config.to_json_string(use_diff=True))
        own = {"task": self.name, "max_length": self.max_length, "preprocess": list(preprocess)}
        named = {"id2label": dict(enumerate(self.labels)), "label2id": {name: i for i, name in enumerate(self.labels)}}
        (folder / "config.json").write_text(json.dumps({**config, **named, **own}, indent=2))
        (folder / "labels.json").write_text(json.dumps(list(self.labels), ensure_ascii=False, indent=2))
        self.tokenizer.save(str(folder / "tokenizer.json"))


def _positions(config: PretrainedConfig) -> int:
    """The longest text in tokens."""
    positions = int(config.max_position_embeddings)
    return positions - int(config.pad_token_id) - 1 if config.model_type in _FIRST_BEHIND_PADDING else positions


def _folder(base: Base) -> Path:
    if base.folder is None:
        raise InvalidData(f"{base.name} reads no text", remedy="choose minilm-l6 or a folder with an encoder")
    return base.folder


def _blank(config: PretrainedConfig) -> nn.Module:
    """The architecture in fp32 without its weights."""
    model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return model.float()
