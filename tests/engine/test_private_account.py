"""What a private run drew is on disk before it is drawn, counts in every attempt, and stands in the receipt."""

import json
from pathlib import Path

import pytest
import torch

from engine import accounting
from engine.accounting import PrivacyBudget, PrivacyEvent
from engine.checkpoint import Snapshots
from engine.data import Source
from engine.errors import BudgetExhausted, EngineError
from engine.events import Listed, PrivacyDrawn
from engine.interrupt import Interrupt
from engine.journal import FILENAME, Journal
from engine.models import Base
from engine.parent import Opened
from engine.parent import told as list_used
from engine.prepare import begin
from engine.receipt import listed, sections
from engine.run import Run
from engine.spec import Splits
from engine.train import train
from tests.engine.documented import undocumented
from tests.engine.private_runs import choice, clipped_sum, flat_gradient, holder, private_begun, private_run
from tests.engine.tiny_run import told, trained


def test_every_draw_is_written_down_before_its_step(tmp_path: Path) -> None:
    run = private_run(tmp_path, [choice()])
    run.journal = Journal(tmp_path / FILENAME)
    trained(run, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / FILENAME).read_text().splitlines()]
    assert len(lines) == run.clock.step == 6
    assert all(PrivacyEvent.from_json(line).sigma == 1.0 for line in lines)
    assert isinstance(run.sink, Listed)
    events = [event for event in run.sink.events if isinstance(event, PrivacyDrawn)]
    assert [(event.step, event.drawn) for event in events] == [(n, n) for n in range(1, 7)]
    assert events[0].draw == lines[0]


def test_a_step_whose_draw_cannot_be_written_down_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = private_begun(tmp_path)
    total = clipped_sum(run, [0, 1])

    def refuse(*_: object) -> None:
        raise BudgetExhausted("no more")

    assert run.journal is not None
    monkeypatch.setattr(run.journal, "append", refuse)
    with pytest.raises(BudgetExhausted):
        holder(run).gradients(run)
    assert torch.equal(flat_gradient(run), total), "no noise was drawn for it either"


def test_without_a_journal_nothing_is_drawn(tmp_path: Path) -> None:
    run = private_run(tmp_path, [choice()])
    run.journal = None
    with pytest.raises(EngineError, match="no journal"):
        begin(run, None)


def test_repeated_steps_count_again_and_the_plan_caps_all_attempts(tmp_path: Path) -> None:
    """A run that is killed and goes on from its snapshot: epsilon is never below what the attempts drew together."""
    path = tmp_path / FILENAME
    first = private_run(tmp_path, [choice(steps=8)])
    first.journal = Journal(path)
    snapshots = Snapshots(tmp_path / "run", first.sink, every_seconds=0.0)

    class Killed(Exception):
        pass

    real = snapshots.write

    def write_then_die(run: Run) -> None:
        if run.clock.step == 5:
            raise Killed
        if run.clock.step == 2:
            real(run)

    snapshots.write = write_then_die  # type: ignore[method-assign]  # a kill between two snapshots
    with pytest.raises(Killed):
        train(first, snapshots, Interrupt())
    assert Journal(path).count == 5

    again = private_run(tmp_path, [choice(steps=8)])
    again.journal = Journal(path)
    train(again, Snapshots(tmp_path / "run", again.sink), Interrupt())
    assert again.journal.count == 8, "three more, which the plan still held"
    assert again.clock.step == 2 + 3
    section = sections(again)["privacy"]
    assert (section["steps"], section["epsilon"]) == (8, accounting.epsilon([_plan(again)], section["delta"]))


def test_a_run_that_lost_all_its_draws_says_so(tmp_path: Path) -> None:
    run = private_run(tmp_path, [choice(steps=2)])
    run.journal = Journal(None, PrivacyBudget(recorded=(_plan(run),)))
    with pytest.raises(BudgetExhausted, match="none of them left a snapshot"):
        begin(run, None)


def test_a_budget_that_does_not_reach_stops_the_run_before_its_first_draw(tmp_path: Path) -> None:
    run = private_run(tmp_path, [choice()])
    run.journal = Journal(tmp_path / FILENAME, PrivacyBudget(epsilon=0.5, delta=0.01))
    with pytest.raises(BudgetExhausted):
        begin(run, None)
    assert not (tmp_path / FILENAME).exists()


def _plan(run: Run) -> PrivacyEvent:
    (event,) = accounting.planned(run.spec, len(run.data.train))
    return event


def test_the_receipt_tells_what_was_drawn(tmp_path: Path) -> None:
    run = private_run(tmp_path, [choice(noise_multiplier=None, epsilon=3.0)])
    assert run.journal is not None
    run.journal = Journal(None, PrivacyBudget(spent=(PrivacyEvent(q=0.1, sigma=2.0, count=10),)))
    trained(run, tmp_path / "run")
    section = sections(run)["privacy"]
    assert undocumented({"privacy": section}) == []
    plan = _plan(run)
    assert section["epsilon"] == accounting.epsilon([plan], section["delta"]) <= 3.0
    assert (section["sampling_rate"], section["noise_multiplier"], section["steps"]) == (plan.q, plan.sigma, 6)
    assert section["dataset_total_epsilon"] > section["epsilon"]
    assert (section["unit"], section["relation"], section["noise_source"]) == ("record", "add or remove one", "os")
    assert "dp-accounting" in section["accountant"]
    assert "test rows" in section["covers"]


@pytest.mark.parametrize("shown", [None, 1_000])
def test_the_receipt_shows_the_public_number_of_training_rows(tmp_path: Path, shown: int | None) -> None:
    run = private_run(tmp_path, [choice()])
    run.journal = Journal(None, PrivacyBudget(rows=700, shown_rows=shown))
    source = Source(tmp_path, "ds_1", "0" * 64, 60, "text_classification", ("a", "b"), ("id", "text"), {})
    held_out = {split: len(run.data.rows(split)) for split in ("valid", "test")}
    train_rows = shown or len(run.data.train)
    (whole,) = listed(run, [source])
    assert whole["splits"] == {"train": train_rows, **held_out}
    assert whole["rows"] == train_rows + sum(held_out.values())
    run.spec = run.spec.model_copy(update={"dataset": Splits(train="a", test="b")})
    apart = listed(run, [source, source])
    # Of a file that serves the training alone the public number is that of all its rows.
    train = {"train": shown} if shown else {"train": train_rows, "valid": held_out["valid"]}
    assert [one["splits"] for one in apart] == [train, {"test": held_out["test"]}]
    assert [one["rows"] for one in apart] == ([shown, held_out["test"]] if shown else [60, 60])


def test_a_receipt_on_a_private_model_shows_the_rows_that_it_used(tmp_path: Path) -> None:
    source = Source(tmp_path, "ds_1", "0" * 64, 60, "text_classification", ("a", "b"), ("id", "text"), {})
    for chosen, rows in (([choice()], 7), ([], 60)):
        run = private_run(tmp_path, chosen)
        parent = Opened(run.spec, tmp_path, tmp_path, Base("tiny", None), run.task, [])
        assert list_used(source, {"test": 7}, parent)["rows"] == rows


def test_epsilon_is_told_on_the_way_and_never_below_what_was_spent(tmp_path: Path) -> None:
    run = trained(private_run(tmp_path, [choice(steps=30)]), tmp_path / "run")
    series = told(run, "epsilon")
    assert len(series) == 30
    assert series == sorted(series)
    delta = run.state("dp_sgd")["delta"]
    for step in (1, 11, 30):
        assert series[step - 1] >= accounting.epsilon([_plan(run).times(step)], delta)
    assert series[-1] == sections(run)["privacy"]["epsilon"]
