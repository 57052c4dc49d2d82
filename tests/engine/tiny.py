"""Small bases, rows and tasks made by code, so that the engine's tests run in seconds and need no download.

The texts can be learned: a label's own words stand among words that both share. So can the pictures: one is brighter
above, the other below.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification

from engine.models import Base
from engine.ports import Pair, Payload, content_of
from engine.rows import Rows, equal_numbers
from engine.tasks.image_classification import ImageClassification
from engine.tasks.text_classification import TextClassification
from engine.tasks.text_image_pairs import TextImagePairs

LABELS = ("ham", "spam")
SHARED = tuple(f"word{i}" for i in range(24))
OWN = (("meeting", "lunch", "thanks", "tomorrow"), ("prize", "winner", "free", "cash"))
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *SHARED, *OWN[0], *OWN[1])


def tiny_bert(folder: Path, hidden: int = 32, layers: int = 2, heads: int = 4, positions: int = 64) -> Base:
    """A random BERT of two layers with a word-level tokenizer, written as a base folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        pad_token_id=0,
        initializer_range=0.2,  # at the usual .02 so small a net takes hundreds of steps to move
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return Base("tiny-bert", folder)


def tiny_texts(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts of 3 to 20 words and their labels, in turn."""
    drawn = np.random.default_rng(seed)
    labels = [i % 2 for i in range(count)]
    texts = []
    for label in labels:
        words = [
            *drawn.choice(SHARED, int(drawn.integers(2, 18))),
            *drawn.choice(OWN[label], int(drawn.integers(1, 3))),
        ]
        texts.append(" ".join(drawn.permutation(words).tolist()))
    return texts, labels


def tiny_text_rows(count: int, seed: int = 0) -> Rows:
    """Rows of texts: of ten, eight train, one valid, one test."""
    texts, labels = tiny_texts(count, seed)
    return rows_of(texts, [text.encode() for text in texts], labels)


def tiny_image_rows(count: int, seed: int = 0, size: int = 12, mode: str = "L") -> Rows:
    """Rows of PNG pictures."""
    drawn = np.random.default_rng(seed)
    labels = [i % 2 for i in range(count)]
    pictures = [_picture(drawn, label, size, mode) for label in labels]
    return rows_of(pictures, pictures, labels)


def tiny_pair_rows(count: int, seed: int = 0, size: int = 12) -> Rows:
    """Rows of pairs: the first word of a caption says the colour and its second the place of a square in noise."""
    drawn = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        colour, place = int(drawn.integers(8)), int(drawn.integers(9))
        pixels = drawn.integers(0, 60, (size, size, 3))
        side, (down, right) = size // 3, divmod(place, 3)
        levels = [190 if colour & bit else 0 for bit in (1, 2, 4)]
        pixels[down * side : (down + 1) * side, right * side : (right + 1) * side] += levels
        pairs.append(Pair(f"{SHARED[colour]} {SHARED[8 + place]}", _png(pixels)))
    return rows_of(pairs, [content_of(one) for one in pairs], equal_numbers([one.text for one in pairs]))


def tiny_task(folder: Path, max_length: int = 32) -> TextClassification:
    """The text task over a tiny base in `folder`."""
    return TextClassification(tiny_bert(folder), LABELS, max_length)


def tiny_image_task(rows: Rows) -> ImageClassification:
    """The image task over `resnet-small`, sized by the rows."""
    return ImageClassification.open(Base("resnet-small", None), LABELS, rows, 1)


def tiny_pair_task(folder: Path, rows: Rows, max_length: int = 32) -> TextImagePairs:
    """The task of pairs over a tiny text tower in `folder`, sized by the rows."""
    return TextImagePairs.open(Base("pair-encoder", tiny_bert(folder).folder), (), rows, max_length)


def rows_of(payloads: Sequence[Payload], contents: Sequence[bytes], labels: Iterable[int]) -> Rows:
    """Rows by code: of twenty, sixteen train, two valid, two test."""
    labels = list(labels)
    splits = ["valid" if i % 20 in (8, 9) else "test" if i % 20 in (18, 19) else "train" for i in range(len(labels))]
    return Rows(
        payloads=list(payloads),
        ids=np.array([hashlib.sha256(content).hexdigest()[:16] for content in contents]),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(splits),
        groups=None,
        shards=np.arange(len(labels), dtype=np.int64) // 16,
    )


def _picture(drawn: np.random.Generator, label: int, size: int, mode: str) -> bytes:
    shape = (size, size) if mode == "L" else (size, size, 3)
    pixels: npt.NDArray[np.int64] = drawn.integers(0, 120, shape)
    half = slice(0, size // 2) if label == 0 else slice(size // 2, size)
    pixels[half] += 100
    return _png(pixels)


def _png(pixels: npt.NDArray[np.int64]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def write_rows(rows: Rows, path: Path, task: str, labels: Sequence[str] = LABELS) -> Path:
    """The rows as a canonical data file."""
    columns: dict[str, Any] = {"id": rows.ids.tolist()}
    if task == "text_image_pairs":
        pairs = [one for one in rows.payloads if isinstance(one, Pair)]
        columns |= {"text": [one.text for one in pairs], "image": [one.image for one in pairs]}
    else:
        columns["image" if task == "image_classification" else "text"] = list(rows.payloads)
    if task in ("text_classification", "image_classification"):
        columns["label"] = pa.array(rows.labels.tolist(), pa.int32())
    if rows.groups is not None:
        columns["group"] = rows.groups.tolist()
    table = pa.table(columns)
    roles = {"group": "who"} if rows.groups is not None else {}
    about = {"version": 1, "task": task, "labels": list(labels), "columns": roles}
    about |= {"chat": True} if rows.chat else {}
    pq.write_table(table.replace_schema_metadata({"fiftytwo": json.dumps(about)}), path)
    return path
