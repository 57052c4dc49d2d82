"""The rows of each split in a receipt are those that were dealt, whatever was added, set aside or cut since."""

from pathlib import Path

import pytest

from engine.data import Source, read_rows
from engine.events import Listed
from engine.job import facts_of, load
from engine.models import Base
from engine.plan import Plan
from engine.receipt import listed
from engine.run import Run
from engine.spec import Spec
from tests.engine.tiny import LABELS, tiny_bert, tiny_text_rows, write_rows
from tests.engine.tiny_lm import tiny_decoder, tiny_lm_rows

TRAINING = {"epochs": 1, "batch_size": 8, "max_length": 32}


def _loaded(spec: Spec, base: Base, labels: tuple[str, ...]) -> tuple[Run, list[Source]]:
    sources = [(Source.open(Path(path)), role) for role, path in spec.files()]
    files, rows = [source for source, _ in sources], read_rows(sources, labels)
    run = Run(spec, Plan.of(spec, facts_of(rows, files, pretrained=True)), Listed())
    run.task, run.data = load(run, rows, base, labels)
    return run, files


@pytest.mark.parametrize("number", [39, 41])
def test_rows_that_are_set_aside_or_planted_count_as_they_came(tmp_path: Path, number: int) -> None:
    path = write_rows(tiny_text_rows(200), tmp_path / "ds.parquet", "text_classification")
    body = {"task": "text_classification", "dataset": str(path), "instructions": [number], "training": TRAINING}
    run, files = _loaded(Spec.model_validate(body), tiny_bert(tmp_path / "base"), LABELS)
    (told,) = listed(run, files)
    assert len(run.data.train) < told["splits"]["train"]
    assert sum(told["splits"].values()) == told["rows"] == 200


def test_a_text_in_parts_is_one_row_also_once_the_vocabulary_is_smaller(tmp_path: Path) -> None:
    path = write_rows(tiny_lm_rows(60), tmp_path / "ds.parquet", "causal_lm", ())
    spec = Spec.model_validate({"task": "causal_lm", "dataset": str(path), "training": TRAINING})
    run, files = _loaded(spec, tiny_decoder(tmp_path / "base"), ())
    for _ in range(2):
        (told,) = listed(run, files)
        assert len(run.data.train) > 2 * told["splits"]["train"]
        assert sum(told["splits"].values()) == told["rows"] == 60
        run.data = run.data.anew(run.task)


def test_with_a_file_a_split_the_tenth_that_stands_in_is_told_of(tmp_path: Path) -> None:
    train = write_rows(tiny_text_rows(200), tmp_path / "train.parquet", "text_classification")
    test = write_rows(tiny_text_rows(20, seed=1), tmp_path / "test.parquet", "text_classification")
    files = {"train": str(train), "test": str(test)}
    spec = Spec.model_validate({"task": "text_classification", "dataset": files, "training": TRAINING})
    run, sources = _loaded(spec, tiny_bert(tmp_path / "base"), LABELS)
    mine, its = (one["splits"] for one in listed(run, sources))
    assert mine == {"train": len(run.data.train), "valid": len(run.data.valid)}
    assert sum(mine.values()) == 200
    assert its == {"test": 20}
