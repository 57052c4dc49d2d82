"""The bytes of a rung are those that a file of the weights would have, and its time is one thread's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaForCausalLM

from engine.ladder import climb, weight_bytes
from tests.engine.tiny_lm import llama_config


def test_tied_embeddings_are_counted_once(tmp_path: Path) -> None:
    model = LlamaForCausalLM(llama_config())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors").values()
    assert weight_bytes(model) == sum(one.numel() * one.element_size() for one in stored)


def test_a_rung_is_timed_on_one_thread_as_the_file_beside_it_is() -> None:
    seen: list[int] = []
    task = SimpleNamespace(
        figures=lambda *_: np.ones((1, 1)),
        collate=lambda examples, _: examples,
        forward=lambda *_: seen.append(torch.get_num_threads()),
    )
    data = SimpleNamespace(examples={"test": [None]}, test=SimpleNamespace(labels=np.zeros(1, np.int64)))
    kept: dict[str, Any] = {}
    run: Any = SimpleNamespace(task=task, data=data, spec=SimpleNamespace(metric="accuracy"), state=lambda _: kept)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        climb(run, "trained", nn.Linear(2, 2), np.zeros((1, 2), np.float32))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
