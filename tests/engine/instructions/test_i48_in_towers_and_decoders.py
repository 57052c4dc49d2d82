"""Instruction 48 where the embedding is not all: tied and untied output layers, special ids in lists, text towers."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from engine.archive import save_weights
from engine.data import Data
from engine.errors import InvalidPlan
from engine.inference import eager_answers
from engine.ports import Pair
from engine.run import Run
from engine.tasks.causal_lm import CausalLM
from engine.tasks.text_image_pairs import TextImagePairs
from tests.engine.runs import tiny_pair_run
from tests.engine.test_text_image_pairs import tiny_clip
from tests.engine.tiny import SHARED, VOCABULARY, tiny_pair_rows
from tests.engine.tiny_lm import llama_config, tiny_chat_rows, tiny_decoder, tiny_lm_run
from tests.engine.tiny_run import begun

UNUSED = tuple(("z", letter) for letter in "bcdfghjklmnpqrst")
WHOLE, KEPT = 261 + len(UNUSED), 261


def language_run(folder: Path, *, tied: bool = True, **more: Any) -> tuple[Run, CausalLM, nn.Module]:
    """A run that is trimmed, its task before, and a copy of the model before."""
    config = llama_config(vocab_size=WHOLE, tie_word_embeddings=tied, eos_token_id=[2, WHOLE - 1])
    base = tiny_decoder(folder / "base", config, further=UNUSED)
    run = begun(tiny_lm_run(folder, [48], base=base, **more))
    untouched, before = CausalLM(base, 48, run.data.train.chat), copy.deepcopy(run.model)
    (one,) = run.plan.on("compress")
    run.model = one.compress(run, run.model)
    return run, untouched, before


def logits(model: Any, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The last states and the logits of one sequence."""
    with torch.no_grad():
        states = model.get_decoder()(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        return states, model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_keeps_the_states_and_the_logits_of_what_stays(tmp_path: Path, tied: bool) -> None:
    run, untouched, before = language_run(tmp_path, tied=tied)
    assert isinstance(run.task, CausalLM)
    effects = run.plan.on("report")[0].report(run)
    assert (effects["rows_removed"], effects["rows_kept"]) == (len(UNUSED), KEPT)
    model: Any = run.model
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert embedding.shape == head.shape == (KEPT, 32)
    assert (head is embedding) is tied
    old, new = (task.tokenizer.get_vocab() for task in (untouched, run.task))
    stays = [old[token] for token in sorted(new, key=lambda token: new[token])]
    assert stays != list(range(KEPT)), "so that ids have moved"
    for text in [str(one) for one in run.data.test.payloads][:4]:
        was, now = (task.encode([text])[0] for task in (untouched, run.task))
        assert [stays[number] for number in now[0].tolist()] == was[0].tolist()
        assert np.array_equal(was[1], now[1])
        (states, expected), (same, found) = logits(before, was[0].tolist()), logits(run.model, now[0].tolist())
        assert torch.equal(states, same)
        assert torch.allclose(expected[:, stays], found, atol=1e-6)


def test_what_went_only_makes_the_rest_likelier(tmp_path: Path) -> None:
    run, untouched, before = language_run(tmp_path)
    texts = [str(one) for one in run.data.test.payloads]
    was, now = (
        eager_answers(task, model, task.encode(texts)) for task, model in ((untouched, before), (run.task, run.model))
    )
    assert np.array_equal(was[:, 1:], now[:, 1:])
    assert (now[:, 0] < was[:, 0]).all()


def test_every_id_moves_along_in_the_stored_folder(tmp_path: Path) -> None:
    folder = tmp_path / "stored"
    folder.mkdir()
    own = {"eos_token_id": [2, WHOLE - 1], "pad_token_id": 0, "temperature": 0.5, "suppress_tokens": [1, 259]}
    run, untouched, _ = language_run(tmp_path)
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(own))
    run.plan.slot("exporter").exporter(run, run.model, folder)
    run.task.describe(folder, run.model, [])
    the = KEPT - 1
    config = json.loads((folder / "config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"], config["bos_token_id"]) == (KEPT, [2, the], 1)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {**own, "eos_token_id": [2, the], "suppress_tokens": [1]}
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [2, the]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.chat_template == untouched.tokenizer.chat_template
    assert tokenizer.convert_tokens_to_ids("the") == the
    assert tokenizer.all_special_ids == untouched.tokenizer.all_special_ids
    texts = [str(one) for one in run.data.test.payloads]
    again = CausalLM.reopen(folder)
    expected = eager_answers(run.task, run.model, run.task.encode(texts))
    assert np.array_equal(eager_answers(again, model.eval(), again.encode(texts)), expected)


def test_conversations_keep_what_their_template_writes(tmp_path: Path) -> None:
    run, untouched, before = language_run(tmp_path, rows=tiny_chat_rows(40))
    texts = [str(one) for one in run.data.test.payloads]
    was, now = (
        eager_answers(task, model, task.encode(texts)) for task, model in ((untouched, before), (run.task, run.model))
    )
    assert np.array_equal(was[:, 1:], now[:, 1:])
    assert run.plan.on("report")[0].report(run)["texts_changed"] == 0


def test_the_parts_of_long_texts_are_cut_once(tmp_path: Path) -> None:
    run = begun(tiny_lm_run(tmp_path, [48], max_length=16))
    parts = len(run.data.train)
    assert parts > len(set(run.data.train.ids.tolist()))
    (one,) = run.plan.on("compress")
    one.compress(run, run.model)
    assert len(run.data.train) == len(run.data.examples["train"]) == parts


def test_a_language_model_keeps_its_alphabet(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match="cannot write every text"):
        tiny_lm_run(tmp_path, [{"number": 48, "keep_characters": False}])


def trimmed(run: Run) -> nn.Module:
    """Trim the run; a copy of the model before."""
    begun(run)
    before = copy.deepcopy(run.model)
    (one,) = run.plan.on("compress")
    run.model = one.compress(run, run.model)
    return before


def compare(run: Run, untouched: TextImagePairs, before: nn.Module, folder: Path) -> None:
    """Both models embed the same, and what is stored does."""
    rows = [one for one in run.data.test.payloads if isinstance(one, Pair)]
    expected = eager_answers(untouched, before, untouched.encode(rows))
    found = eager_answers(run.task, run.model, run.data.examples["test"])
    assert np.array_equal(found, expected)
    folder.mkdir()
    save_weights(run.model, folder)
    run.task.describe(folder, run.model, [])
    again = TextImagePairs.reopen(folder)
    assert np.allclose(eager_answers(again, again.build(), again.encode(rows)), expected, atol=1e-6)


def test_pairs_find_each_other_as_before(tmp_path: Path) -> None:
    run = tiny_pair_run(tmp_path, [48], tiny_pair_rows(200))
    assert isinstance(run.task, TextImagePairs)
    untouched = copy.deepcopy(run.task)
    before = trimmed(run)
    words = {word for one in run.data.train.payloads if isinstance(one, Pair) for word in one.text.split()}
    effects = run.plan.on("report")[0].report(run)
    assert effects["rows_removed"] == len(VOCABULARY) - 4 - len(words)
    assert run.task.vocabulary.get_vocab_size() == run.task.config.text_config.vocab_size == 4 + len(words)
    assert not run.model.get_submodule("text_model").embeddings.word_embeddings.weight.requires_grad  # type: ignore[union-attr]
    compare(run, untouched, before, tmp_path / "stored")


@pytest.mark.parametrize("end", ["by its id", "by the highest"])
def test_clip_reads_its_texts_off_the_same_token(tmp_path: Path, end: str) -> None:
    rows = tiny_pair_rows(200)
    base = tiny_clip(tmp_path / "clip")
    if end == "by the highest":
        config = json.loads((tmp_path / "clip" / "config.json").read_text())
        config["text_config"]["eos_token_id"] = 2
        (tmp_path / "clip" / "config.json").write_text(json.dumps(config))
    run = tiny_pair_run(tmp_path, [48], rows)
    run.task = TextImagePairs.open(base, (), rows, 32)
    train, valid, test = (rows.where(split).loaded() for split in ("train", "valid", "test"))
    run.data = Data(train, valid, test, run.task)
    untouched = copy.deepcopy(run.task)
    assert isinstance(untouched, TextImagePairs)
    before = trimmed(run)
    assert run.plan.on("report")[0].report(run)["rows_removed"] > 0
    assert isinstance(run.task, TextImagePairs)
    assert run.task.vocabulary.token_to_id(SHARED[-1]) is None
    last = run.task.vocabulary.get_vocab_size() - 1
    assert run.task.vocabulary.token_to_id("[SEP]") == last
    assert run.task.config.text_config.eos_token_id == (2 if end == "by the highest" else last)
    compare(run, untouched, before, tmp_path / "stored")
