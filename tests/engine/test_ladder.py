"""The bytes of a rung are those that a file of the weights would have."""

from pathlib import Path

from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from engine.ladder import weight_bytes
from tests.engine.tiny_lm import llama_config


def test_tied_embeddings_are_counted_once(tmp_path: Path) -> None:
    model = LlamaForCausalLM(llama_config())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors").values()
    assert weight_bytes(model) == sum(one.numel() * one.element_size() for one in stored)
