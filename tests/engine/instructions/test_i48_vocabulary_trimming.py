"""Instruction 48: logits stay to the bit for kept tokens, what is counted, and when too much would go."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification

from engine.archive import load_checkpoint, save_weights
from engine.data import Data
from engine.errors import InvalidData
from engine.inference import eager_answers
from engine.models import Base
from engine.ports import Trimming, text_of
from engine.run import Run
from engine.tasks.text_classification import TextClassification
from tests.engine.tiny import SHARED, VOCABULARY, tiny_bert, tiny_text_rows
from tests.engine.tiny_run import begun, text_run

UNUSED = 40


def padded_base(folder: Path) -> None:
    """A base whose vocabulary has words that no text holds, some of them before the special tokens."""
    tiny_bert(folder)
    about = json.loads((folder / "tokenizer.json").read_text())
    words = [*(f"unused{number}" for number in range(UNUSED)), *VOCABULARY]
    about["model"]["vocab"] = {word: number for number, word in enumerate(words)}
    for one in about["added_tokens"]:
        one["id"] += UNUSED
    for name, one in about["post_processor"]["special_tokens"].items():
        one["ids"] = [words.index(name)]
    (folder / "tokenizer.json").write_text(json.dumps(about))
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": len(words), "pad_token_id": words.index("[PAD]")}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertForSequenceClassification(BertConfig.from_pretrained(folder)).save_pretrained(folder)


def trimmed_run(folder: Path, **parameters: Any) -> tuple[Run, TextClassification, Any]:
    """A run of a base with unused words, the untouched task, and a copy of the model before it is trimmed."""
    run = text_run(folder, [{"number": 48, **parameters}], count=200)
    padded_base(folder / "base")
    untouched = TextClassification(Base("padded", folder / "base"), ("ham", "spam"), 32)
    run.task = TextClassification(Base("padded", folder / "base"), ("ham", "spam"), 32)
    run.data = Data(run.data.train, run.data.valid, run.data.test, run.task)
    begun(run)
    before = untouched.build()
    before.load_state_dict(run.model.state_dict())
    (one,) = run.plan.on("compress")
    run.model = one.compress(run, run.model)
    return run, untouched, before


def test_logits_are_the_same_to_the_bit(tmp_path: Path) -> None:
    run, untouched, before = trimmed_run(tmp_path)
    effects = run.plan.on("report")[0].report(run)
    assert effects["rows_removed"] == UNUSED
    assert effects["tokens_gone"] == effects["texts_changed"] == 0
    texts = [str(text) for text in run.data.test.payloads]
    expected = eager_answers(untouched, before, untouched.encode(texts))
    assert np.array_equal(eager_answers(run.task, run.model, run.data.examples["test"]), expected)
    assert isinstance(run.task, TextClassification)
    assert run.task.pad == run.task.tokenizer.token_to_id("[PAD]") == run.task.config.pad_token_id
    assert run.task.config.vocab_size == len(VOCABULARY)
    lengths = {len(example) for example in run.data.examples["test"]}
    assert len(lengths) > 1, "so that there was padding"


def test_it_loads_again_from_its_folder(tmp_path: Path) -> None:
    run, _, _ = trimmed_run(tmp_path)
    folder = tmp_path / "stored"
    folder.mkdir()
    save_weights(run.model, folder)
    run.task.describe(folder, run.model, [])
    again = TextClassification.reopen(folder)
    loaded = load_checkpoint(folder, again.build())
    texts = [str(text) for text in run.data.test.payloads]
    expected = eager_answers(run.task, run.model, run.data.examples["test"])
    assert np.array_equal(eager_answers(again, loaded, again.encode(texts)), expected)
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == len(VOCABULARY)


def test_training_rows_alone_are_counted(tmp_path: Path) -> None:
    rows = tiny_text_rows(200)
    lonely = "lonely"
    pairs = zip(rows.payloads, rows.splits, strict=True)
    rows = replace(rows, payloads=[f"{text_of(text)} {lonely}" if split == "test" else text for text, split in pairs])
    run = text_run(tmp_path, [48])
    padded_base(tmp_path / "base")
    about = json.loads((tmp_path / "base" / "tokenizer.json").read_text())
    about["model"]["vocab"][lonely] = about["model"]["vocab"].pop("unused0")
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(about))
    run.task = TextClassification(Base("padded", tmp_path / "base"), ("ham", "spam"), 32)
    train, valid, test = (rows.where(one).loaded() for one in ("train", "valid", "test"))
    run.data = Data(train, valid, test, run.task)
    begun(run)
    run.plan.on("compress")[0].compress(run, run.model)
    assert isinstance(run.task, Trimming)
    assert run.task.vocabulary.token_to_id(lonely) is None
    assert run.task.vocabulary.token_to_id(SHARED[0]) is not None


def test_what_is_missed_on_valid_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        trimmed_run(tmp_path, min_count=100)
    (fault,) = caught.value.faults
    assert fault.pointer == "/instructions/0/max_unknown"
    assert "%" in fault.detail


def test_tokens_can_be_kept_by_name(tmp_path: Path) -> None:
    run, _, _ = trimmed_run(tmp_path / "kept", keep_tokens=["unused7"])
    assert run.plan.on("report")[0].report(run)["rows_removed"] == UNUSED - 1
    with pytest.raises(InvalidData, match="nosuch"):
        trimmed_run(tmp_path / "refused", keep_tokens=["nosuch"])
