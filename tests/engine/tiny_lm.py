"""A small language model made by code: a byte-level tokenizer with two merges, a random Llama, and texts to learn."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from engine.data import Data
from engine.events import Listed
from engine.journal import Journal
from engine.models import Base
from engine.plan import Plan
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec
from engine.tasks.causal_lm import CausalLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = (
    "The tide comes in at six and goes out at noon.",
    "Seven grey geese fly over the frozen lake.",
    "A letter was left below the old stone bridge.",
    "Nobody in the village knew the tall stranger.",
)


def tiny_tokenizer(template: str | None = TEMPLATE, further: Sequence[tuple[str, str]] = ()) -> PreTrainedTokenizerFast:
    """Bytes as tokens, what `further` merges give, and "the" as one."""
    merges = [*further, ("t", "h"), ("th", "e")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL[2],
        bos_token=SPECIAL[1],
        pad_token=SPECIAL[0],
        chat_template=template,
    )


def tiny_decoder(
    folder: Path,
    config: PreTrainedConfig | None = None,
    kind: type[PreTrainedModel] = LlamaForCausalLM,
    template: str | None = TEMPLATE,
    further: Sequence[tuple[str, str]] = (),
) -> Base:
    """A random decoder with its tokenizer, written as a base folder."""
    tokenizer = tiny_tokenizer(template, further)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        kind(config or llama_config()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Base("tiny-decoder", folder)


def llama_config(**changed: Any) -> LlamaConfig:
    """Two layers, grouped queries, tied embeddings."""
    fields: dict[str, Any] = {
        "vocab_size": 261,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return LlamaConfig(**{**fields, **changed})


def tiny_lm_rows(count: int, seed: int = 0) -> Rows:
    """Rows of one to four sentences: of ten, eight train, one valid, one test."""
    drawn = np.random.default_rng(seed)
    texts = [f"{i}. " + " ".join(drawn.choice(SENTENCES, int(drawn.integers(1, 5)))) for i in range(count)]
    return lm_rows(texts)


def lm_rows(texts: Sequence[str], *, chat: bool = False) -> Rows:
    """These texts as rows, dealt as `tiny_lm_rows` says."""
    splits = ["valid" if i % 10 == 8 else "test" if i % 10 == 9 else "train" for i in range(len(texts))]
    return Rows(
        payloads=list(texts),
        ids=np.array([hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]),
        labels=np.zeros(len(texts), dtype=np.int64),
        splits=np.array(splits),
        groups=None,
        shards=np.arange(len(texts), dtype=np.int64) // 16,
        chat=chat,
    )


def tiny_chat_rows(count: int) -> Rows:
    """Conversations of one question and its answer."""
    found = [
        [{"role": "user", "content": f"Line {i}?"}, {"role": "assistant", "content": SENTENCES[i % len(SENTENCES)]}]
        for i in range(count)
    ]
    return lm_rows([json.dumps(one) for one in found], chat=True)


def tiny_lm_run(
    folder: Path, instructions: Sequence[Any] = (), rows: Rows | None = None, base: Base | None = None, **training: Any
) -> Run:
    """A run up to its first step: data folded, task open."""
    rows = rows or tiny_lm_rows(60)
    given = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3, "max_length": 48, **training}
    body = {"task": "causal_lm", "dataset": "rows", "instructions": list(instructions), "training": given}
    spec = Spec.model_validate(body)
    run = Run(spec, Plan.of(spec, {"pretrained"}), Listed(), journal=Journal())
    for one in run.plan.on("records"):
        rows = one.records(run, rows)
    for one in run.plan.on("split"):
        rows = one.split(run, rows)
    parts = [rows.where(split) for split in ("train", "valid", "test")]
    train_rows, valid, test = parts if "streamed_records" in run.plan.facts else [part.loaded() for part in parts]
    for one in run.plan.on("training_records"):
        train_rows = one.training_records(run, train_rows)
    run.task = CausalLM(base or tiny_decoder(folder / "base"), spec.training.max_length, rows.chat)
    run.data = Data(train_rows, valid, test, run.task)
    return run
