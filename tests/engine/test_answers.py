"""answers.jsonl: what the exported file says of each test row, held against the receipt and against the row itself."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Source
from engine.deliver import deliver
from engine.evaluate import METRICS
from engine.events import FileWritten, Listed
from engine.inference import eager_answers
from engine.language_reader import LanguageReader
from engine.models import Base
from engine.rows import Rows
from engine.spec import Spec
from engine.tasks.likelihood import Likelihood
from engine.tasks.retrieval import Retrieval
from tests.engine.runs import tiny_image_run, trained
from tests.engine.tiny import tiny_image_rows, write_rows
from tests.engine.tiny_lm import tiny_chat_rows, tiny_lm_rows, tiny_lm_run


def test_the_file_gives_the_score_of_the_receipt_and_tells_no_row(tmp_path: Path) -> None:
    rows = tiny_image_rows(60)
    run = trained(tiny_image_run(tmp_path, (), rows, epochs=2), tmp_path)
    path = write_rows(rows, tmp_path / "ds_1.parquet", run.spec.task)
    run.spec = Spec.model_validate({**run.spec.model_dump(), "dataset": str(path), "answers": True})
    receipt = deliver(run, tmp_path, [Source.open(path)], Base(run.spec.base_model, None), "job_1")
    assert isinstance(run.sink, Listed)
    (told,) = [one for one in run.sink.events if isinstance(one, FileWritten) and one.kind == "answers"]
    assert (told.filename, told.media_type) == ("answers.jsonl", "application/x-ndjson")
    lines = [json.loads(line) for line in (tmp_path / told.path).read_text().splitlines()]
    test = run.data.test
    assert [line["id"] for line in lines] == test.ids.tolist()
    assert [line["label"] for line in lines] == [run.task.labels[i] for i in test.labels.tolist()]
    assert {key for line in lines for key in line} == {"id", "sha256", "figures", "label", "predicted"}
    figures = np.array([line["figures"] for line in lines])
    assert METRICS["accuracy"].value(figures) == pytest.approx(receipt["quality"]["exported"]["value"], abs=1e-6)
    assert [line["label"] == line["predicted"] for line in lines] == (figures[:, 0] == 1).tolist()


@pytest.mark.usefixtures("measured_here")
def test_of_a_private_data_set_no_test_row_is_told_of_by_itself(tmp_path: Path) -> None:
    rows = tiny_image_rows(60)
    run = trained(tiny_image_run(tmp_path, (), rows, epochs=1), tmp_path)
    path = write_rows(rows, tmp_path / "ds_1.parquet", run.spec.task)
    fields = {**run.spec.model_dump(), "dataset": str(path), "answers": "kept", "instructions": [37]}
    run.spec = Spec.model_validate(fields)
    contrary = -eager_answers(run.task, run.model, run.data.examples["test"])
    quality = deliver(run, tmp_path, [Source.open(path)], Base(run.spec.base_model, None), "job_1", contrary)["quality"]
    assert quality["agreement"] == 0, "every row is flipped"
    assert (quality["flipped"], quality["golden"]) == ([], [])
    assert isinstance(run.sink, Listed)
    kinds = {one.kind for one in run.sink.events if isinstance(one, FileWritten)}
    assert kinds == {"model", "checkpoint", "receipt", "report", "kept_answers"}


def test_a_language_model_tells_bits_and_bytes() -> None:
    (row,) = Likelihood().row_answers(np.array([[8 * math.log(2), 5, 11]], np.float32), np.zeros(1, np.int64))
    assert row == {"bits": 8.0, "bytes": 11}


def test_pairs_tell_ranks_and_what_was_found_instead() -> None:
    text = np.eye(3)
    image = np.array([[1, 0, 0], [0.9, 0.4, 0], [0, 0, 1]])  # the second picture is nearer to the first text
    told = Retrieval().row_answers(np.hstack([text, image]).astype(np.float32), np.zeros(3, np.int64))
    assert told == [{"rank": 1, "found": 0}, {"rank": 2, "found": 0}, {"rank": 1, "found": 2}]


@pytest.mark.parametrize(
    ("rows", "given"),
    [(tiny_lm_rows(10), "prompt_characters"), (tiny_chat_rows(10), "prompt_messages")],
    ids=["texts", "conversations"],
)
def test_a_language_model_goes_on_from_a_part_of_a_row(tmp_path: Path, rows: Rows, given: str) -> None:
    run = tiny_lm_run(tmp_path, rows=rows)
    model: Any = run.task.build()
    folder = tmp_path / "package"
    model.save_pretrained(folder)
    run.task.describe(folder, model, [])
    payloads: Sequence[str] = [str(rows.payloads[0])]
    (told,) = LanguageReader(folder).continued(payloads)
    assert set(told) == {"generated", given}
    if given == "prompt_messages":
        assert told[given] == 1  # the question, and not its answer
    else:
        assert 0 < told[given] <= len(payloads[0]) // 2
        assert payloads[0][told[given]] == " "


def test_a_row_without_a_prompt_is_left_out(tmp_path: Path) -> None:
    run = tiny_lm_run(tmp_path)
    model: Any = run.task.build()
    model.save_pretrained(tmp_path / "package")
    run.task.describe(tmp_path / "package", model, [])
    assert LanguageReader(tmp_path / "package").continued(["a", "x y " * 400]) == [{}, {}]
