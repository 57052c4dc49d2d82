"""How many tokens a run has learned from: those of its rows, as often as a step was taken on them."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import TimeLimit
from engine.events import Finished
from engine.run import Run
from tests.engine.parents import TRAINING, run_job
from tests.engine.runs import tiny_image_run, tiny_run, trained
from tests.engine.tiny import tiny_bert, tiny_text_rows, write_rows
from tests.engine.tiny_lm import tiny_lm_run


def of_its_rows(run: Run) -> int:
    """The tokens of all training rows, once."""
    return int(run.data.lengths("train").sum())


def test_they_are_those_of_the_rows_times_the_epochs(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, [{"name": "gradient_accumulation", "steps": 2}], epochs=2), tmp_path)
    assert run.clock.tokens == 2 * of_its_rows(run) > 0
    packed = trained(tiny_lm_run(tmp_path, [12], epochs=2), tmp_path / "packed")
    assert packed.clock.tokens == 2 * of_its_rows(packed) > 0


def test_a_run_that_is_stopped_and_resumed_counts_each_step_once(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, epochs=2, max_seconds=1e-9)
    with pytest.raises(TimeLimit):  # after a snapshot
        trained(run, tmp_path)
    assert 0 < run.clock.tokens < of_its_rows(run)
    assert trained(tiny_run(tmp_path, epochs=2), tmp_path).clock.tokens == 2 * of_its_rows(run)


def test_pictures_have_none(tmp_path: Path) -> None:
    assert trained(tiny_image_run(tmp_path, max_steps=1), tmp_path).clock.tokens == 0


def test_the_result_of_a_job_tells_them_unless_rows_were_drawn_in_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFTYTWO_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr("engine.job.deliver", lambda *_: {"limits": {"passed": True}})
    tiny_bert(tmp_path / "models" / "tiny-bert")
    path = write_rows(tiny_text_rows(60), tmp_path / "ds_1.parquet", "text_classification")
    spec = {"task": "text_classification", "model": "tiny-bert", "dataset": str(path)}

    def result(folder: str, **more: Any) -> Any:
        (end,) = [one for one in run_job({**spec, **more}, tmp_path / folder) if isinstance(one, Finished)]
        return end.result

    plain = result("plain", training={**TRAINING, "max_steps": 2})
    assert plain["limits"] == {"passed": True}
    assert 2 * TRAINING["batch_size"] < plain["trained_tokens"] <= 2 * TRAINING["batch_size"] * TRAINING["max_length"]
    private = {"name": "dp_sgd", "steps": 2, "expected_batch": 8, "noise_multiplier": 1.0}
    assert result("private", instructions=[private]) == {"limits": {"passed": True}}
