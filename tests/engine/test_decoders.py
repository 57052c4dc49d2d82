"""Decoders of several architectures train, save and load; equal weights give equal checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from engine.archive import load_checkpoint, save_weights
from engine.exporters import FORMATS
from engine.inference import eager_answers
from engine.tasks.causal_lm import CausalLM
from tests.engine.runs import trained
from tests.engine.tiny_lm import (
    llama_config,
    tiny_decoder,
    tiny_lm_run,
)
from tests.engine.tiny_run import told


def deepseek() -> DeepseekV3Config:
    return DeepseekV3Config(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_shared_experts=1,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        max_position_embeddings=128,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def qwen() -> Qwen2Config:
    fields = llama_config().to_dict()
    return Qwen2Config(
        **{name: fields[name] for name in ("vocab_size", "hidden_size", "intermediate_size")}
        | {
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": False,
        }
    )


@pytest.mark.parametrize("kind", ["llama", "qwen2", "deepseek_v3"])
def test_each_architecture_trains_saves_and_loads(tmp_path: Path, kind: str) -> None:
    configs: dict[str, Any] = {"llama": llama_config, "qwen2": qwen, "deepseek_v3": deepseek}
    classes: Any = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM, "deepseek_v3": DeepseekV3ForCausalLM}
    base = tiny_decoder(tmp_path / "base", configs[kind](), classes[kind])
    run = trained(tiny_lm_run(tmp_path, base=base, max_steps=6), tmp_path)
    losses = told(run, "train_loss")
    assert losses[-1] < losses[0]
    expected = eager_answers(run.task, run.model, run.data.examples["test"])
    for name in ("exported", "checkpoint"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "exported":
            FORMATS["safetensors"].write(run, run.model, folder)
        else:
            save_weights(run.model, folder)
        run.task.describe(folder, run.model, [])
        again = CausalLM.reopen(folder)
        answers = eager_answers(again, again.build(), run.data.examples["test"])
        np.testing.assert_allclose(answers, expected, rtol=1e-5)
    loaded = load_checkpoint(folder, run.task.build())
    np.testing.assert_allclose(eager_answers(run.task, loaded, run.data.examples["test"]), expected, rtol=1e-5)


def test_equal_weights_give_equal_checkpoints_without_tied_copies(tmp_path: Path) -> None:
    task = CausalLM(tiny_decoder(tmp_path / "base"), 32)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_weights(task.build(), tmp_path / name)
        task.describe(tmp_path / name, task.build(), [])
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert contents[0] == contents[1]
    assert b"lm_head" not in contents[0]["model.safetensors"]
