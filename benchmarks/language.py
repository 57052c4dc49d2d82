"""Language model training: packed rows through the engine's loop, against transformers' Trainer and padded batches.

SmolLM2-135M with the adapters of 19, in tokens a processor second, padding not counted. The Trainer gets the very rows
that the engine packs, with positions that start again at each document, so that both sides keep documents apart; it
runs in fp32. The padded side is the engine's own loop in fp32 on the documents as they are, two a batch.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.machine import has_bf16
from benchmarks.pairs import Line, Pair, in_turn
from benchmarks.peer import Peer
from benchmarks.texts import ROOT, canonical, made_text
from benchmarks.training import Ours, batches_of, seconds_of
from engine.allocator import keep_freed_memory
from engine.instructions.gradients.i19_low_rank_adaptation import LowRankAdaptation
from engine.lazy import peft
from engine.models import find
from engine.parts import NO_TARGET
from engine.ports import Example
from engine.run import Run
from engine.token_loss import IGNORED
from engine.train import again

BROWN = ROOT.parent / "shared" / "data" / "lm" / "brown"
BASE = "smollm2-135m"
LENGTH = 256
ROWS = 2  # of packed tokens a step, and documents of a padded batch
DOCUMENTS = 2000
SENTENCES = 2  # a document
_OTHERS = 16


def documents(split: str) -> Iterator[str]:
    """Neighbouring sentences of the Brown corpus, or made texts with as many tokens."""
    if not BROWN.is_dir():
        drawn = np.random.default_rng([*split.encode()])
        while True:
            yield made_text(drawn, 42, 0.6)
    with (BROWN / f"{split}.txt").open(encoding="utf-8") as file:
        lines = (line.strip() for line in file if line.strip())
        while together := list(islice(lines, SENTENCES)):
            yield " ".join(together)


def prepared(folder: Path) -> Path:
    """The documents as a canonical data file."""
    raw = folder / "documents.jsonl"
    with raw.open("w", encoding="utf-8") as file:
        for split, count in (("train", DOCUMENTS), ("valid", _OTHERS), ("test", _OTHERS)):
            for text in islice(documents(split), count):
                file.write(json.dumps({"text": text, "split": split}) + "\n")
    return canonical(raw, "causal_lm")


def body(file: Path, instructions: Sequence[Any]) -> Mapping[str, Any]:
    """A job on these documents."""
    training = {"epochs": 1, "batch_size": ROWS, "max_length": LENGTH, "seed": 1}
    return {"task": "causal_lm", "dataset": str(file), "instructions": [19, *instructions], "training": training}


def tokens_of(run: Run, batches: Sequence[Sequence[int]]) -> int:
    """Real tokens of some batches."""
    lengths = run.data.lengths("train")
    return sum(int(lengths[list(batch)].sum()) for batch in batches)


def rate(run: Run, steps: int) -> float:
    """Tokens a processor second of the engine's loop."""
    model: nn.Module = run.model
    return tokens_of(run, batches_of(run, steps)) / seconds_of(lambda: again(run, model, steps=steps))


def packed_row(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Documents behind one another, as 12 lays them: no document's first token is a target."""
    targets = [np.where(one[1] == NO_TARGET, IGNORED, one[0]) for one in examples]
    parts = {
        "input_ids": [one[0] for one in examples],
        "position_ids": [np.arange(one.shape[1]) for one in examples],
        "labels": targets,
    }
    return {name: np.concatenate(values).tolist() for name, values in parts.items()}


def collate(rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
    """Packed rows padded to the longest. No mask: positions alone keep documents apart, and padding is another one."""
    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "position_ids": 0, "labels": IGNORED}
    return {
        name: torch.tensor([[*row[name], *[filler] * (longest - len(row[name]))] for row in rows])
        for name, filler in fill.items()
    }


def adapted() -> tuple[Any, Any]:
    """SmolLM2 in fp32 with PEFT's adapters on the same layers as 19's."""
    ours = LowRankAdaptation()
    model = AutoModelForCausalLM.from_pretrained(str(find(BASE, None).folder), dtype=torch.float32)
    model.config.use_cache = False  # with a cache, packed documents see each other
    config = peft().LoraConfig(
        task_type="CAUSAL_LM",
        r=ours.rank,
        lora_alpha=ours.alpha,
        lora_dropout=ours.dropout,
        target_modules="all-linear",
    )
    return peft().get_peft_model(model, config), collate


@contextmanager
def opened(setting: Setting) -> Iterator[Pair]:
    """Packed rows on both sides, and padded batches beside them."""
    keep_freed_memory()
    torch.set_num_threads(setting.cores)
    file = prepared(setting.scratch("language"))
    packed, padded = Ours.of(body(file, [12, 26] if has_bf16() else [12])), Ours.of(body(file, []))
    peer = Peer(setting.scratch("language-trainer"), setting.cores, adapted)
    steps, fewer, short = (1, 1, 1) if setting.quick else (6, 2, 6)

    def pair(number: int) -> dict[str, float]:
        run, beside = packed.shuffled(number), padded.shuffled(number)
        batches = batches_of(run, fewer)
        rows = [packed_row([run.data.examples["train"][i] for i in batch]) for batch in batches]

        def ours() -> list[float]:
            return [rate(run, steps)]

        def others() -> list[float]:
            return [tokens_of(run, batches) / peer.seconds(rows, ROWS), rate(beside, short)]

        found = in_turn(number, ours, others)
        (mine,), (theirs, slow) = found
        return {"ratio": mine / theirs, "over padded": mine / slow, "ours": mine, "trainer": theirs, "padded": slow}

    with peer:
        pair(0)  # warms all sides up
        yield pair


BENCHMARKS = (
    Benchmark(
        "language",
        "language model, LoRA",
        f"SmolLM2-135M, 19 and 12, {ROWS} rows of {LENGTH} tokens a step, 26 where the processor has bf16: real tokens"
        " a processor second over those of transformers' Trainer with PEFT on the same packed rows in fp32, and over"
        f" those of the engine's own padded batches of {ROWS} documents in fp32. A document is {SENTENCES} neighbouring"
        " sentences of the Brown corpus, or a made text of such lengths where it is not at hand",
        (
            Line("ratio", 1.5, 2.0, unit="x"),
            Line("over padded", 2.5, 3.0, unit="x"),
            Line("ours", unit="tokens/s"),
            Line("trainer", unit="tokens/s"),
            Line("padded", unit="tokens/s"),
        ),
        opened,
        180,
    ),
)
