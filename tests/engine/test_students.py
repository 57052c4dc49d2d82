"""Which blocks a student keeps, in every kind of net, and that a decoder of fewer layers still finds its cache."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DeepseekV3Config,
    Qwen3Config,
    Qwen3ForCausalLM,
    ResNetForImageClassification,
)

from engine.coupling import Unfit
from engine.pruning import reshape, shapes_of
from engine.resnets import resnet_config
from engine.students import spread_blocks, student, student_blocks
from tests.engine.tiny import tiny_bert
from tests.engine.tiny_lm import llama_config


def resnet(depths: list[int]) -> ResNetForImageClassification:
    """A residual net of three stages."""
    config = resnet_config("resnet-small", 1, 2)
    config.depths = depths
    model: ResNetForImageClassification = ResNetForImageClassification(config).eval()
    return model


def test_layers_are_spread_and_fewer() -> None:
    assert spread_blocks(6, 3) == [0, 2, 5]
    assert spread_blocks(12, 6) == [0, 2, 4, 7, 9, 11]
    assert spread_blocks(2, 1) == [0]
    for depth, count in ((2, 2), (1, 1), (2, 3)):
        with pytest.raises(Unfit, match="not smaller"):
            spread_blocks(depth, count)


def test_an_encoder_keeps_some_of_its_layers(tmp_path: Path) -> None:
    tiny_bert(tmp_path, layers=5)
    built = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert list(student_blocks(built, None).values()) == [[0, 4]]
    assert list(student_blocks(built, 3).values()) == [[0, 2, 4]]


def test_a_residual_net_keeps_the_first_block_of_each_stage() -> None:
    model = resnet([2, 3, 2])
    assert list(student_blocks(model, None).values()) == [[0], [0], [0]]
    assert list(student_blocks(model, 5).values()) == [[0, 1], [0], [0, 1]]
    for layers, said in ((2, "too few"), (7, "not smaller"), (9, "not smaller")):
        with pytest.raises(Unfit, match=said) as caught:
            student_blocks(model, layers)
        assert caught.value.remedy == "choose 3 to 6 layers"
    with pytest.raises(Unfit, match="one block in each"):
        student_blocks(resnet([1, 1, 1]), None)


def test_a_student_of_a_residual_net_runs_and_takes_its_shapes_along() -> None:
    model = resnet([2, 2, 2])
    small = student(model, student_blocks(model, 4))
    pictures = torch.rand(2, 1, 16, 16)
    again = reshape(resnet([2, 2, 2]), shapes_of(small))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(pixel_values=pictures).logits, small(pixel_values=pictures).logits)


def test_a_decoder_of_fewer_layers_answers_alike_with_and_without_a_cache() -> None:
    torch.manual_seed(0)
    width: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64}
    width |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen3Config(**width, vocab_size=64, num_hidden_layers=5, head_dim=8, use_cache=True)
    model = Qwen3ForCausalLM(config).eval()
    (kept,) = student_blocks(model, None).values()
    assert kept == [0, 4]
    small = student(model, {"model.layers": kept})
    assert vars(small)["config"].num_hidden_layers == len(vars(small)["config"].layer_types) == 2
    ids = torch.randint(0, 64, (1, 7))
    ways = [
        small.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cached, pad_token_id=0)  # type: ignore[operator]
        for cached in (True, False)
    ]
    assert torch.equal(*ways)


def test_a_decoder_of_unlike_layers_is_refused() -> None:
    width: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64}
    width |= {"num_attention_heads": 4, "num_key_value_heads": 4}
    ranks: dict[str, Any] = {
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    }
    experts: dict[str, Any] = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 8,
    }
    config = DeepseekV3Config(**width, **ranks, **experts, vocab_size=64, num_hidden_layers=3, first_k_dense_replace=1)
    with pytest.raises(Unfit, match="not all alike"):
        student_blocks(AutoModelForCausalLM.from_config(config), None)
    assert list(student_blocks(AutoModelForCausalLM.from_config(llama_config()), None).values()) == [[0]]
