"""What the engine expects of the parts that differ from task to task, as protocols. Knows no task.

Rows come as a payload (a text, the bytes of an image, or both), examples are payloads encoded once, a batch is a
dictionary of tensors by the names that the model's `forward` takes, plus `labels`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


class Pair(NamedTuple):
    """A text and the bytes of the picture that it belongs to."""

    text: str
    image: bytes


Payload: TypeAlias = str | bytes | Pair
Example: TypeAlias = npt.NDArray[Any]
Batch: TypeAlias = dict[str, Tensor]
Answers: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """What an export traces with: tensors in the order of `forward`, no two of them the same object.

    `dynamic` maps an input's name to its free axes, such as {"input_ids": {0: "batch", 1: "sequence"}}; `outputs` side
    by side are the answers.
    """

    inputs: Mapping[str, Tensor]
    dynamic: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...] = ("logits",)


@dataclass(frozen=True)
class Cost:
    """What one row costs a model, roughly: weights, operations of a forward pass, bytes that training keeps for it."""

    parameters: int
    operations: float
    activation_bytes: int


class Task(Protocol):
    """One of the four kinds of problem, opened for one job: it knows the base model and the labels."""

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    """Names in `engine.evaluate.METRICS`; the first is the default."""
    formats: ClassVar[tuple[str, ...]]
    """Formats of the file that ships; the first is the default."""
    default_model: ClassVar[str]
    labels: tuple[str, ...]
    """The classes; empty where rows have none."""
    pretrained: bool

    def build(self) -> nn.Module:
        """The untouched model in fp32: pretrained weights, or fresh ones from PyTorch's global generator."""

    def encode(self, payloads: Sequence[Payload]) -> list[Example]:
        """Payloads to examples: unpadded token ids (length,) int32, or pixels (channels, height, width) uint8."""

    def lengths(self, examples: Sequence[Example]) -> npt.NDArray[np.int64]:
        """The cost of each example in tokens; 1 for an image. (n,)."""

    def collate(self, examples: Sequence[Example], labels: Sequence[int]) -> Batch:
        """Examples to a batch padded to its longest; `labels` (batch,) int64."""

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model says of each row, such as logits (batch, classes), in whatever precision the context gives."""

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """One value an example, (batch,), fp32: the sum over its items."""

    def items(self, batch: Batch) -> int:
        """How many items the losses of a batch sum over: what a window is divided by."""

    def answers(self, outputs: Tensor, batch: Batch) -> Tensor:
        """What of the outputs a score needs, (batch, k): logits, or likelihoods, or embeddings."""

    def mean_loss(self, answers: Answers, labels: Labels) -> float:
        """The loss of many rows an item, from their answers (n, k)."""

    def figures(self, metric: str, answers: Answers, labels: Labels) -> npt.NDArray[np.float64]:
        """Each row's part in a score, (n, columns), as `engine.evaluate.METRICS` takes it."""

    def same(self, first: Answers, second: Answers) -> npt.NDArray[np.bool_] | None:
        """Whether two models say the same of each row, (n,); None where the task has no such notion."""

    def contradicted(self, expected: Answers, exported: Answers) -> tuple[int, int]:
        """(rows where the file contradicts the model, rows where the model is sure enough to be contradicted)."""

    def quality(self, reference: Answers, exported: Answers, labels: Labels) -> Mapping[str, Any]:
        """Further figures for the receipt's `quality`."""

    def said(self, answers: Sequence[float]) -> Mapping[str, Any]:
        """One row's answers, (k,), as the receipt shows them."""

    def row_answers(self, answers: Answers, labels: Labels) -> Sequence[Mapping[str, Any]]:
        """What the model says of each row, beside what is true where that has a name; never the row itself."""

    def exportable(self, model: nn.Module) -> nn.Module:
        """A module that takes the tensors of `samples` in order and gives logits, ready to be traced."""

    def samples(self, payloads: Sequence[Payload]) -> Samples:
        """Two real rows of different length as tracing inputs, with the axes that stay free."""

    def describe(self, folder: Path, model: nn.Module, preprocess: Sequence[Mapping[str, Any]]) -> None:
        """Write what a stranger needs beside the weights: config.json, labels.json, tokenizer or preprocessor."""


@runtime_checkable
class Cutting(Protocol):
    """A task whose rows may be longer than its model sees at once, so that training takes them in parts."""

    def cut(self, examples: Sequence[Example]) -> tuple[npt.NDArray[np.int64], Sequence[Example]]:
        """The parts that teach something, and which example, (n,), each is of; in order."""


@runtime_checkable
class Decoding(Protocol):
    """A task whose model says too much of a row to be kept: a distribution over a vocabulary at each token."""

    config: Any
    """The model's configuration, with its `vocab_size`."""

    def states(self, model: nn.Module, batch: Batch) -> Tensor:
        """The states (parts, length, width) that the output layer reads."""


@runtime_checkable
class Trimming(Protocol):
    """A task whose vocabulary can be made smaller."""

    @property
    def vocabulary(self) -> Any:
        """The tokenizer as `engine.vocabulary` reads it: of the library tokenizers."""

    @property
    def special(self) -> set[int]:
        """The ids that a configuration names."""

    def read(self, example: Example) -> Sequence[int]:
        """The token ids of an example."""

    def tokens(self, payload: Payload) -> Sequence[str]:
        """A row as the model reads it, token by token."""

    def trim(self, model: nn.Module, kept: Sequence[int]) -> int:
        """Keep these ids alone, numbered anew in their order, in tokenizer, configuration and model; the rows gone."""


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter lies."""
    return next(model.parameters()).device


def text_of(payload: Payload) -> str:
    """The text of a row that has one.

    Raises:
        TypeError: for a picture alone.
    """
    if isinstance(payload, bytes):
        raise TypeError("a picture has no text")
    return payload.text if isinstance(payload, Pair) else payload


def with_text(payload: Payload, text: str) -> Payload:
    """The same row with another text."""
    return payload._replace(text=text) if isinstance(payload, Pair) else text


def image_of(payload: Payload) -> bytes:
    """The bytes of a row's picture.

    Raises:
        TypeError: for a text alone.
    """
    if isinstance(payload, str):
        raise TypeError("a text has no picture")
    return payload.image if isinstance(payload, Pair) else payload


def content_of(payload: Payload) -> bytes:
    """What a row's hash is taken of: its UTF-8, its picture, or the one and the other with a NUL between."""
    if isinstance(payload, Pair):
        return payload.text.encode() + b"\0" + payload.image
    return payload.encode() if isinstance(payload, str) else payload


def size_of(payload: Payload) -> int:
    """What rows are sorted by so that neighbours cost alike: characters of a text, else bytes of a picture."""
    return len(payload.text if isinstance(payload, Pair) else payload)
