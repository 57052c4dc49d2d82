"""Runs inside a run: each is made by one function, finds what the data hooks left, and keeps its memory to itself."""

import re
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.instructions.preprocessing import i12_sequence_packing as file_12
from engine.interrupt import Interrupt
from engine.prepare import begin
from engine.run import Run, inner_run
from engine.train import again
from engine.twin import untreated_answers
from tests.engine.runs import tiny_image_run, trained
from tests.engine.tiny import tiny_image_rows
from tests.engine.tiny_lm import tiny_lm_run


def _with_canaries(folder: Path, *others: Any) -> Run:
    return tiny_image_run(folder, [41, *others], tiny_image_rows(80), max_steps=1)


def test_a_twin_knows_the_rows_that_were_planted(tmp_path: Path) -> None:
    run = trained(_with_canaries(tmp_path, 47), tmp_path / "run")
    answers = untreated_answers(run, tmp_path, "", Interrupt())
    assert len(answers) == len(run.data.test)


def test_it_finds_what_the_data_hooks_left_and_nothing_that_came_later(tmp_path: Path) -> None:
    run = _with_canaries(tmp_path)
    begin(run, None)
    state = run.state("privacy_canaries")
    assert "before" in state, "the model hook has noted the losses"
    inner = inner_run(run)
    found = inner.state("privacy_canaries")
    assert found["coins"] == state["coins"]
    assert len(found["payloads"]) == len(state["payloads"])
    assert "before" not in found
    found["coins"].clear()
    assert state["coins"]
    assert inner_run(inner).state("privacy_canaries")["coins"] == state["coins"], "as the outermost run began"


def test_a_run_that_goes_on_hands_on_the_same(tmp_path: Path) -> None:
    first = trained(_with_canaries(tmp_path), tmp_path / "run")
    resumed = trained(_with_canaries(tmp_path), tmp_path / "run")
    assert resumed.clock.trained
    assert "before" in resumed.state("privacy_canaries")
    found, expected = (inner_run(run).state("privacy_canaries") for run in (resumed, first))
    assert found.keys() == expected.keys() == {"coins", "labels", "payloads"}


def test_a_model_that_trains_on_is_asked_again_how_documents_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_12, "_leak", lambda *_, masked, **__: 0.0 if masked else 1.0)
    run = trained(tiny_lm_run(tmp_path, [12], max_steps=1), tmp_path / "run")
    real, masks = file_12._packed, []

    def packed(batch: Any, sizes: Any, *, masked: bool) -> Any:
        masks.append(masked)
        return real(batch, sizes, masked=masked)

    monkeypatch.setattr(file_12, "_packed", packed)
    again(run, run.model, steps=1)
    assert masks
    assert all(masks), "without its mask each document sees the one before it"


def test_nobody_else_makes_one() -> None:
    root = Path(engine.__file__).parent
    made = {path.name for path in root.rglob("*.py") if re.search(r"[ (\[]Run\(", path.read_text(encoding="utf-8"))}
    whole_jobs = {"compress.py", "evaluate_model.py", "job.py", "parent.py"}
    assert made == {"run.py", *whole_jobs}
