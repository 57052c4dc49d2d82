"""Packed rows attend document by document, and only where that is all the attention there is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from engine import packed_attention
from engine.packed_attention import BY_DOCUMENT, attend, can_go_by_document
from engine.prepare import begin
from tests.engine.runs import trained
from tests.engine.tiny_lm import tiny_lm_run

SIZES: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
LENGTHS = [5, 1, 9, 2]


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, intermediate_size=64, **SIZES))
    model.eval()
    return model


def row() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(50, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    return ids, torch.cat([torch.arange(length) for length in LENGTHS])[None]


def test_answers_and_gradients_are_those_of_each_document_alone() -> None:
    model, (ids, positions) = tiny(), row()
    alone = torch.cat([model(input_ids=one, use_cache=False).logits for one in ids.split(LENGTHS, dim=1)], dim=1)
    alone.square().sum().backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    attend(model, BY_DOCUMENT)
    together = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    together.square().sum().backward()
    torch.testing.assert_close(together, alone)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], msg=name)


def test_no_score_between_documents_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (ids, positions) = tiny(), row()
    seen: list[tuple[int, int]] = []

    def counted(module: object, query: torch.Tensor, key: torch.Tensor, *rest: object, **named: object) -> object:
        seen.append((query.shape[2], key.shape[2]))
        return sdpa_attention_forward(module, query, key, *rest, **named)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(packed_attention, "sdpa_attention_forward", counted)
    before = attend(model, BY_DOCUMENT)
    model(input_ids=ids, position_ids=positions, use_cache=False)
    assert seen == [(length, length) for length in LENGTHS] * 2
    assert before == "sdpa"


def test_several_rows_go_as_before() -> None:
    model, ids = tiny(), torch.randint(50, (3, 6), generator=torch.Generator().manual_seed(2))
    before = model(input_ids=ids, use_cache=False).logits
    attend(model, BY_DOCUMENT)
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, before)


def test_windows_and_other_attentions_keep_their_masks() -> None:
    assert can_go_by_document(tiny())
    small = MistralConfig(vocab_size=50, intermediate_size=64, sliding_window=4, **SIZES)
    assert not can_go_by_document(MistralForCausalLM(small))
    eager = tiny()
    eager.set_attn_implementation("eager")
    assert not can_go_by_document(eager)


def test_a_packed_run_attends_so_until_it_is_trained(tmp_path: Path) -> None:
    run = tiny_lm_run(tmp_path / "a", ["sequence_packing"], max_length=96)
    begin(run, None)
    assert run.model.config._attn_implementation == BY_DOCUMENT  # type: ignore[union-attr]
    whole = tiny_lm_run(tmp_path / "b", ["sequence_packing"], max_length=96, max_steps=2)
    trained(whole, tmp_path / "b")
    assert whole.model.config._attn_implementation == "sdpa"  # type: ignore[union-attr]
