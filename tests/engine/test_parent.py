"""A trained model as the beginning of another job: its rows are dealt by the facts that held in its training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import job
from engine.data import Source, read_rows
from engine.models import Base
from engine.parent import Opened, without
from engine.plan import Plan
from engine.ports import Pair, image_of
from engine.spec import Spec
from tests.engine.tiny import tiny_pair_rows, tiny_pair_task, tiny_task, tiny_text_rows, write_rows

TRAINING = {"epochs": 1, "batch_size": 8}


def _clients(count: int, clients: int) -> Any:
    return replace(tiny_text_rows(count), groups=np.array([f"client-{i % clients}" for i in range(count)]))


def _opened(folder: Path, task: Any, dataset: Any, *instructions: Any, model: str | None = None) -> Opened:
    body = {"task": task.name, "dataset": dataset, "instructions": list(instructions), "training": TRAINING}
    spec = Spec.model_validate(body | ({"model": model} if model else {}))
    return Opened(spec, folder, folder, Base("job_parent", folder), task, [])


def test_a_model_of_clients_is_dealt_although_its_test_file_names_none(tmp_path: Path) -> None:
    files = {
        "train": str(write_rows(_clients(60, 60), tmp_path / "train.parquet", "text_classification")),
        "test": str(write_rows(tiny_text_rows(20, seed=3), tmp_path / "test.parquet", "text_classification")),
    }
    opened = _opened(tmp_path, tiny_task(tmp_path / "base"), files, {"number": 40, "client_rate": 0.5})
    assert len(opened.deal(opened.sources())["test"]) == 20


@pytest.mark.parametrize("task", ["text_classification", "text_image_pairs"])
def test_the_facts_are_those_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """Of a base of learned and fresh parts too, which is no folder like another."""
    seen: list[frozenset[str]] = []
    real = Plan.of

    def noted(spec: Spec, facts: Any = ()) -> Plan:
        seen.append(frozenset(facts))
        return real(spec, facts)

    monkeypatch.setattr(Plan, "of", noted)
    if task == "text_classification":
        tiny: Any = tiny_task(tmp_path / "base")
        path, base = write_rows(_clients(60, 30), tmp_path / "ds.parquet", task), Base("minilm-l6", tmp_path / "base")
    else:
        rows = tiny_pair_rows(40)
        tiny = tiny_pair_task(tmp_path / "base", rows)
        path, base = write_rows(rows, tmp_path / "ds.parquet", task, ()), Base("pair-encoder", tmp_path / "base")
    opened = _opened(tmp_path, tiny, str(path), model=base.name)
    opened.deal(opened.sources())
    source = Source.open(path)
    rows = read_rows([(source, "")], source.labels)
    assert seen == [job.facts_of(rows, [source], pretrained=base.pretrained)]
    assert ("pretrained" in seen[0]) is (task == "text_classification")


def test_a_picture_that_scores_a_model_teaches_it_under_no_caption() -> None:
    rows = tiny_pair_rows(20)
    scored = rows.where("test")
    captioned = [Pair(f"another {i}", image_of(one)) for i, one in enumerate(scored.payloads)]
    given = replace(tiny_pair_rows(20, seed=1), payloads=[*captioned, *tiny_pair_rows(18, seed=1).payloads])
    left = without(given, scored)
    assert len(left) == 18
    assert not {image_of(one) for one in left.payloads} & {image_of(one) for one in scored.payloads}
    texts = tiny_text_rows(40)
    assert len(without(texts, texts.where("test"))) == 36
