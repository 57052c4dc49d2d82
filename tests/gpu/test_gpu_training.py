"""Jobs on a GPU reach what they reach on a processor, twice the same bytes, and go on elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import Snapshots
from engine.data import Data
from engine.events import Listed, Warned
from engine.interrupt import StopRequested
from engine.ports import device_of
from engine.run import Run
from engine.tasks.text_classification import TextClassification
from engine.train import train
from tests.engine.processor import on_the_processor
from tests.engine.runs import tiny_image_run, tiny_pair_run, tiny_run, trained
from tests.engine.stopping import StopAt, same, weights
from tests.engine.tiny import LABELS, tiny_bert, tiny_text_rows
from tests.engine.tiny_lm import tiny_lm_run
from tests.engine.tiny_run import told

pytestmark = pytest.mark.gpu

HALF: list[Any] = [{"name": "autocast", "dtype": "float16"}, 28]
PLANS: dict[str, tuple[Callable[..., Run], list[Any]]] = {
    "text": (tiny_run, []),
    "text, many": (tiny_run, [11, 20, 22, 25, {"name": "gradient_accumulation", "steps": 2}]),
    "text, bf16": (tiny_run, [26]),
    "text, fp16": (tiny_run, HALF),
    "text, adversarial": (tiny_run, [31]),
    "text, compressed": (tiny_run, [{"name": "structured_pruning", "ratio": 0.3}, 49, 51]),
    "text, adapters": (tiny_run, [19, 26]),
    "language": (tiny_lm_run, [12, 19]),
    "pictures": (tiny_image_run, [22, 26]),
    "pictures, adversarial": (tiny_image_run, [31]),
    "pairs": (tiny_pair_run, [7, 11, 22]),
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("plan", PLANS)
def test_a_run_that_is_stopped_and_resumed_gives_the_same_bytes(plan: str, tmp_path: Path, here: torch.device) -> None:
    made, choices = PLANS[plan]
    whole = trained(made(tmp_path / "a", choices, epochs=3), tmp_path / "a")
    assert device_of(whole.model).type == here.type
    for stop in (1, 5, 9, 10_000):  # in the first epoch, across epochs, and beyond the end
        run = made(tmp_path / "b", choices, epochs=3)
        try:
            train(run, Snapshots(tmp_path / "b", run.sink), StopAt(run, stop))
        except StopRequested:
            continue
    assert run.clock.trained
    assert same(weights(run), weights(whole))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_attention_over_many_tokens_gives_the_same_bytes_again(tmp_path: Path) -> None:
    """So many that a GPU would add up the parts of a gradient in whatever order they are done."""
    rows = tiny_text_rows(20)
    rows = replace(rows, payloads=[" ".join([str(text)] * 60) for text in rows.payloads])
    found = []
    for number in range(3):
        run = tiny_run(tmp_path, [26], rows, batch_size=4, max_length=512)
        base = tiny_bert(tmp_path / "wide", hidden=128, heads=2, positions=512)
        run.task = TextClassification(base, LABELS, 512)
        run.data = Data(run.data.train, run.data.valid, run.data.test, run.task)
        found.append(weights(trained(run, tmp_path / str(number))))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


@pytest.mark.parametrize("made", [tiny_run, tiny_image_run, tiny_lm_run, tiny_pair_run])
def test_every_operation_of_a_model_has_an_order(made: Callable[..., Run], tmp_path: Path, here: torch.device) -> None:
    """Nobody has to be warned that bytes may differ."""
    run = trained(made(tmp_path), tmp_path)
    assert isinstance(run.sink, Listed)
    assert [event.code for event in run.sink.events if isinstance(event, Warned)] == []
    assert torch.is_deterministic_algorithms_warn_only_enabled() is (here.type == "cpu")


@pytest.mark.parametrize("made", [tiny_run, tiny_image_run, tiny_lm_run])
def test_a_snapshot_goes_on_elsewhere(made: Callable[..., Run], tmp_path: Path, here: torch.device) -> None:
    """From the GPU to the processor and back: what moves with it is all that a run needs."""
    run = made(tmp_path, epochs=3)
    with pytest.raises(StopRequested):
        train(run, Snapshots(tmp_path, run.sink), StopAt(run, 5))
    assert device_of(run.model).type == here.type
    with on_the_processor():
        run = made(tmp_path, epochs=3)
        with pytest.raises(StopRequested):
            train(run, Snapshots(tmp_path, run.sink), StopAt(run, 10))
    assert device_of(run.model).type == "cpu"
    assert told(run, "train_loss"), "it took steps"
    run = trained(made(tmp_path, epochs=3), tmp_path)
    assert device_of(run.model).type == here.type
    assert run.clock.step == run.clock.total
    assert {float(state["step"]) for state in run.optimizer.state.values()} == {float(run.clock.total)}


def _scores(made: Callable[..., Run], folder: Path, **training: Any) -> list[float]:
    run = trained(made(folder, epochs=8, learning_rate=3e-3, **training), folder)
    return told(run, "valid_score")


@pytest.mark.parametrize("choices", [[], [11, 26]], ids=str)
def test_a_text_run_learns_as_on_a_processor(choices: list[Any], tmp_path: Path) -> None:
    rows = tiny_text_rows(400)
    there = _scores(tiny_run, tmp_path / "there", instructions=choices, rows=rows)
    with on_the_processor():
        known = _scores(tiny_run, tmp_path / "known", instructions=choices, rows=rows)
    assert min(there[-1], known[-1]) >= 0.9
    assert abs(there[-1] - known[-1]) <= 0.1


def test_an_image_run_learns_as_on_a_processor(tmp_path: Path) -> None:
    there = _scores(tiny_image_run, tmp_path / "there")
    with on_the_processor():
        known = _scores(tiny_image_run, tmp_path / "known")
    assert min(there[-1], known[-1]) >= 0.9


def test_the_first_losses_are_those_of_a_processor(tmp_path: Path) -> None:
    """No dropout, so the two devices compute the same numbers in another order."""
    found = told(trained(tiny_lm_run(tmp_path / "there", [19]), tmp_path / "there"), "train_loss")
    with on_the_processor():
        known = told(trained(tiny_lm_run(tmp_path / "known", [19]), tmp_path / "known"), "train_loss")
    assert found[0] == pytest.approx(known[0], rel=1e-4)
    assert found[-1] < found[0]
