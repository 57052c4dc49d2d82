"""Instructions 3 and 7: shards of a file of lines made by code, and a joint space of emoji and their names."""

import io
import json
import tempfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.article.embedded import DATA, meaning
from benchmarks.article.section import Figures, NotAtHand, Section
from benchmarks.texts import ROOT
from engine.contrastive import FIRST_LOG_SCALE, MOST_LOG_SCALE, alignment, contrastive_losses, mean_cosine, ranks
from engine.data import ParquetPayloads
from engine.instructions.preprocessing.i03_dynamic_sharding import grouped

_LIMIT = 2**20
_GROUP_ROWS = 64
_WORDS = ("record", "größer", "naïve", "день", "数据", "plain", "café", "line", "shard", "日本")
EMOJI = DATA / "pairs" / "emoji.zip"


def sharding(seed: int, quick: bool) -> Figures:
    """3: what shards hold, beside the lines of the file; ours reads them as what an upload becomes."""
    ways: dict[str, Callable[[Path], Iterator[bytes]]] = {"the article's": _article_shards, "ours": _our_shards}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        path.write_bytes(_lines(seed, (2 if quick else 7) * _LIMIT + _LIMIT // 2))
        lines = path.read_bytes().decode().splitlines(keepends=True)
        pq.write_table(pa.table({"text": lines}), path.with_suffix(".parquet"), row_group_size=_GROUP_ROWS)
        return {name: _sharded(path, way) for name, way in ways.items()}


def _lines(seed: int, size: int) -> bytes:
    """JSON lines of about so many bytes, many characters of which take two or three."""
    made: list[bytes] = []
    drawn, length = np.random.default_rng(seed), 0
    while length < size:
        text = " ".join(drawn.choice(_WORDS, int(drawn.integers(20, 200))))
        made.append(json.dumps({"text": text, "id": len(made)}, ensure_ascii=False).encode() + b"\n")
        length += len(made[-1])
    return b"".join(made)


def _sharded(path: Path, way: Callable[[Path], Iterator[bytes]]) -> dict[str, float | None]:
    expected, seen, largest = Counter(path.read_bytes().splitlines()), Counter[bytes](), 0
    for shard in way(path):
        largest = max(largest, len(shard))
        seen.update(shard.splitlines())
    tracemalloc.start()
    for _ in way(path):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "records lost": float((expected - seen).total()),
        "broken pieces": float((seen - expected).total()),
        "largest shard over the limit": largest / _LIMIT,
        "peak memory over file size": peak / path.stat().st_size,
    }


def _article_shards(path: Path) -> Iterator[bytes]:
    """Counts in bytes, slices characters, rounds the number of shards down, reads all, gives the rest to the last."""
    text = path.read_text(encoding="utf-8")
    count = max(1, path.stat().st_size // _LIMIT)
    size = path.stat().st_size // count
    for number in range(count):
        last = number == count - 1
        yield text[number * size : None if last else (number + 1) * size].encode()


def _our_shards(path: Path) -> Iterator[bytes]:
    """As the engine reads what was uploaded: whole row groups of a Parquet file."""
    payloads = ParquetPayloads(path.with_suffix(".parquet"), ["text"])
    for groups in grouped(payloads.group_bytes, _LIMIT):
        rows = range(int(payloads.starts[groups[0]]), int(payloads.starts[groups[-1] + 1]))
        yield "".join(str(payloads.read(row)) for row in rows).encode()


class _Towers(nn.Module):
    """A linear head on frozen sentence embeddings, and two layers on thumbnails."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.text = nn.Linear(384, 128)
        self.image = nn.Sequential(nn.Linear(432, 256), nn.ReLU(), nn.Linear(256, 128))
        self.log_scale = nn.Parameter(torch.tensor(FIRST_LOG_SCALE))

    def forward(self, texts: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides, (n, 128), of length 1."""
        return F.normalize(self.text(texts), dim=1), F.normalize(self.image(images), dim=1)


_TERMS = {
    "distance alone, the article's only term between the two": (0.0, 0.0, 1.0),
    "the article's .6 : .3 : .1, text and image read as contrastive": (0.6, 0.3, 0.1),
    "ours": (0.5, 0.5, 0.0),
}


def aligning(seed: int, quick: bool) -> Figures:
    """7: recall in the whole test set both ways, and whether the space has collapsed."""
    return {name: _aligned(seed, weights, 1 if quick else 20) for name, weights in _TERMS.items()}


def _aligned(seed: int, weights: tuple[float, float, float], epochs: int) -> dict[str, float | None]:
    train_texts, train_images, alike = _pairs("train")
    towers, drawn = _Towers(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(towers.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(alike), generator=drawn).split(64)[:-1]:
            text, image = towers(train_texts[rows], train_images[rows])
            to_image, to_text = contrastive_losses(text, image, towers.log_scale.exp(), alike[rows])
            loss = weights[0] * to_image + weights[1] * to_text + weights[2] * alignment(text, image)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            towers.log_scale.data.clamp_(max=MOST_LOG_SCALE)
    texts, images, test_alike = _pairs("test")
    with torch.no_grad():
        said, shown = (side.numpy() for side in towers(texts, images))
    numbers = test_alike.numpy()
    return {
        "recall at 10, text to picture": float((ranks(said, shown, numbers) < 10).mean()),
        "recall at 10, picture to text": float((ranks(shown, said, numbers[:, ::-1]) < 10).mean()),
        "mean cosine between pictures": mean_cosine(shown),
    }


@cache
def _pairs(split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Sentence embeddings (n, 384), thumbnails (n, 432), and numbers of captions and pictures, (n, 2)."""
    if not EMOJI.is_file():
        raise NotAtHand(f"{EMOJI.name} is missing: a ZIP of pairs belongs at {EMOJI.relative_to(ROOT.parent)}")
    with zipfile.ZipFile(EMOJI) as archive:
        rows = [json.loads(line) for line in archive.read(f"{split}.jsonl").splitlines()]
        pictures = [archive.read(row["image"]) for row in rows]
    captions = [row["text"] for row in rows]
    shown = np.stack([_thumbnail(picture) for picture in pictures])
    alike = np.stack([np.unique(one, return_inverse=True)[1] for one in (captions, pictures)], axis=1)
    return torch.from_numpy(meaning().of(captions)), torch.from_numpy(shown), torch.from_numpy(alike)


def _thumbnail(picture: bytes) -> npt.NDArray[np.float32]:
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB").resize((12, 12)), dtype=np.float32).ravel()
    return pixels / np.float32(255) - np.float32(0.5)


SECTIONS = (
    Section(
        3,
        "Dynamic sharding",
        "divides a file into shards below a limit of megabytes, and claims 30 % less reading and 22 % shorter training"
        " on medical images.",
        (
            "Offsets are computed in bytes and used to slice decoded characters, so shards of a text with multibyte"
            " characters have the wrong sizes.",
            "It cuts anywhere: a record that lies across a cut is broken in two.",
            "The number of shards is rounded down, so shards exceed the limit, and what is left over goes to the last.",
            "It reads the whole file into memory and then copies it.",
            "There are no workers, no order and no way to go on after a stop.",
        ),
        "makes a shard of whole row groups, which hold whole records, and reads it without loading the file; the order"
        " of shards is a function of seed and epoch.",
        f"7.5 MiB of JSON lines made by code with many multibyte characters, at a limit of 1 MiB; for ours the same"
        f" records in row groups of {_GROUP_ROWS}, by one of which a shard may exceed the limit.",
        "Reading is what a plain stream reads, so less reading holds only against a rewrite or readers that skip lines;"
        " seconds and the claim on medical images were not measured here.",
        sharding,
    ),
    Section(
        7,
        "Multimodal alignment",
        "adds .6 of a text loss, .3 of an image loss and .1 of the distance between the two embeddings, and claims 91.3"
        " % retrieval.",
        (
            "The text and the image loss are not defined; as losses of one side each they teach no retrieval.",
            "The only term between the two sides is a distance, and any constant answer makes it zero.",
            "Embeddings are not normalised, so the distance also falls by shrinking them.",
            "There are no negatives, and the two encoders need not even have one dimension.",
        ),
        "trains cross-entropy from text to picture and back over the batch at a learned temperature, on vectors of"
        " length 1; equal captions are no negatives of each other, and a sum without anything that pushes apart is"
        " refused.",
        "1,271 emoji and their names, 200 for the test (chance: recall at 10 of .05); a linear head on frozen MiniLM"
        " and two layers on thumbnails of 12 pixels, 20 epochs, with the engine's terms and ranks (ties count"
        " against).",
        "A mean cosine near 1 is a collapsed space, which may still beat chance at recall. The 91.3 % names no data,"
        " gallery or k, and was not measured here.",
        aligning,
    ),
)
