"""The parts of the language benchmark: the documents, and that the Trainer's rows keep them apart."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import language
from benchmarks.__main__ import BENCHMARKS
from benchmarks.language import collate, documents, packed_row
from engine.tasks.causal_lm import CausalLM
from engine.token_loss import IGNORED
from tests.engine.tiny_lm import SENTENCES, tiny_decoder


def test_the_lines_are_those_that_were_set() -> None:
    lines = {line.figure: (line.passes, line.goal) for line in BENCHMARKS["language"].lines}
    assert lines["ratio"] == (1.5, 2.0)
    assert lines["over padded"] == (2.5, 3.0)
    assert language.LENGTH == 256


def test_a_document_is_two_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.txt").write_text("One.\nTwo.\n\nThree.\nFour.\nFive.\n")
    monkeypatch.setattr(language, "BROWN", tmp_path)
    assert list(documents("train")) == ["One. Two.", "Three. Four.", "Five."]


def test_made_documents_are_as_long_as_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "BROWN", tmp_path / "absent")
    made = list(islice(documents("train"), 2000))
    assert made == list(islice(documents("train"), 2000))
    lengths = np.array([len(text.split()) for text in made])
    assert 46 <= lengths.mean() <= 50  # brown's in tokens of SmolLM2: 47.9
    assert np.abs(np.quantile(lengths, [0.25, 0.5, 0.75]) - [29, 42, 60]).max() <= 4


def test_the_trainers_rows_keep_documents_apart(tmp_path: Path) -> None:
    """Oracle: each document by itself. The rows are of unequal length, so one of them is padded."""
    base = tiny_decoder(tmp_path / "base")
    examples = CausalLM(base, 64).encode(list(SENTENCES))
    rows = [packed_row(examples[:3]), packed_row(examples[3:])]
    assert sum(label != IGNORED for label in rows[0]["labels"]) == sum(one.shape[1] - 1 for one in examples[:3])
    model = AutoModelForCausalLM.from_pretrained(str(base.folder)).eval()
    model.config.use_cache = False

    def total(batch: dict[str, torch.Tensor]) -> float:
        targets = int((batch["labels"][:, 1:] != IGNORED).sum())
        return float(model(**batch).loss) * targets

    with torch.no_grad():
        alone = sum(total(collate([packed_row([one])])) for one in examples)
        assert total(collate(rows)) == pytest.approx(alone, rel=1e-5)
        assert collate(rows)["input_ids"].shape == (2, len(rows[0]["input_ids"]))
        mixed = [{**row, "position_ids": list(range(len(row["input_ids"])))} for row in rows]
        assert total(collate(mixed)) != pytest.approx(alone, rel=1e-5)
