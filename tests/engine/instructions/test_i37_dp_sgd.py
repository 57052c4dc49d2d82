"""A private run draws, clips and noises as its account says: each of the four known faults is caught by a test here.

Noise halved and noise a chunk by the variance over many steps; clipping off by one record's largest influence; a
divisor from the data by steps of unequal draws.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from engine import accounting
from engine.accounting import PrivacyBudget, PrivacyEvent
from engine.catalogue import CATALOGUE
from engine.checkpoint import Snapshots
from engine.errors import BudgetExhausted, EngineError, InvalidPlan
from engine.events import Listed, PrivacyDrawn
from engine.instruction import Instruction, Window
from engine.interrupt import Interrupt
from engine.journal import FILENAME, Journal
from engine.plan import Plan
from engine.prepare import begin
from engine.receipt import sections
from engine.run import Run
from engine.spec import Spec
from engine.train import train
from tests.engine.tiny_lm import tiny_lm_run
from tests.engine.tiny_run import text_run, told, trained

RARE = 1e-6
BOUND = 0.2


def _choice(**given: Any) -> dict[str, Any]:
    return {"name": "dp_sgd", "steps": 6, "expected_batch": 8, "noise_multiplier": 1.0, "max_grad_norm": BOUND, **given}


def _text_run(folder: Path, chosen: list[dict[str, Any]]) -> Run:
    """A run whose batches are 37's own affair."""
    return text_run(folder, chosen, batch_size=32)


def _begun(folder: Path, **given: Any) -> Run:
    run = _text_run(folder, [_choice(**given)])
    begin(run, None)
    return run


def _one(run: Run) -> Instruction:
    return run.plan.slot("backward")


def _weights(run: Run) -> list[torch.nn.Parameter]:
    return [weight for weight in run.model.parameters() if weight.requires_grad]


def _clipped_sum(run: Run, rows: list[int]) -> torch.Tensor:
    """What backward leaves for these rows, chunk by chunk of `physical_batch`."""
    run.model.zero_grad(set_to_none=True)
    data = run.data
    for start in range(0, len(rows), 3):
        part = rows[start : start + 3]
        batch = run.task.collate([data.examples["train"][i] for i in part], [int(data.train.labels[i]) for i in part])
        _one(run).backward(run, lambda batch=batch: run.task.losses(run.task.forward(run.model, batch), batch), 1.0)
    return torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in _weights(run)])


# Draws.


def _windows(run: Run, count: int) -> Iterator[Window]:
    one = _one(run)
    for _ in range(count):
        yield from one.grouping(run, one.order(run, 0), 0)


def test_draws_are_independent_in_rows_and_steps(tmp_path: Path) -> None:
    run = _begun(tmp_path, steps=100)
    rows = len(run.data.train)
    sizes = np.array([sum(map(len, window.chunks)) for window in _windows(run, 20)])
    rate = 8 / rows
    statistic = float(((sizes - rows * rate) ** 2).sum() / (rows * rate * (1 - rate)))
    assert min(stats.chi2.cdf(statistic, len(sizes)), stats.chi2.sf(statistic, len(sizes))) > RARE
    assert abs(float(np.corrcoef(sizes[:-1], sizes[1:])[0, 1])) < 5 / len(sizes) ** 0.5


def test_the_seed_says_nothing_of_the_draws(tmp_path: Path) -> None:
    run = _begun(tmp_path, steps=50)
    first, second = ([window.chunks for window in _windows(run, 1)] for _ in range(2))
    assert first != second


def test_the_divisor_is_the_fixed_number_also_of_an_empty_draw(tmp_path: Path) -> None:
    run = _begun(tmp_path, steps=200, expected_batch=1)
    windows = list(_windows(run, 1))
    assert {window.divisor for window in windows} == {1.0}
    assert any(not window.chunks for window in windows)
    assert len(windows) == 200, "an empty draw is a step"


def test_chunks_are_sorted_by_length_and_bounded(tmp_path: Path) -> None:
    run = _begun(tmp_path, steps=5, expected_batch=20, physical_batch=4)
    lengths = run.data.lengths("train")
    for window in _windows(run, 1):
        taken = [row for chunk in window.chunks for row in chunk]
        assert max(map(len, window.chunks)) <= 4
        assert [int(lengths[row]) for row in taken] == sorted((int(lengths[row]) for row in taken), reverse=True)
        assert len(set(taken)) == len(taken)


def test_a_record_that_stands_twice_is_drawn_once(tmp_path: Path) -> None:
    run = _begun(tmp_path, steps=5, expected_batch=20)
    run.data.train.ids[5] = run.data.train.ids[2]
    assert 5 not in set(_one(run).order(run, 0))


# One record's influence.


def test_one_record_moves_the_sum_by_no_more_than_the_bound(tmp_path: Path) -> None:
    """Clipping off, or of the mean, or without the bias, is seen here."""
    run = _begun(tmp_path)
    run.model.eval()
    rows = list(range(9))
    whole = _clipped_sum(run, rows)
    moves = [float((whole - _clipped_sum(run, [r for r in rows if r != row])).norm()) for row in rows]
    assert max(moves) == pytest.approx(BOUND, rel=1e-3), "somebody reaches the bound"
    assert max(moves) <= BOUND * (1 + 1e-4)


def test_the_step_of_a_draw_is_the_clipped_sum_over_the_fixed_number(tmp_path: Path) -> None:
    """A divisor from the data is seen: draws of 3 and of 6 rows are divided alike."""
    run = _begun(tmp_path, noise_multiplier=0.3, noise_source="torch")
    run.model.eval()
    for rows in ([0, 1, 2], [0, 1, 2, 3, 4, 5]):
        total = _clipped_sum(run, rows)
        steps = []
        for _ in range(300):
            run.journal = Journal()
            _clipped_sum(run, rows)
            _one(run).gradients(run)
            steps.append(torch.cat([w.grad.flatten() for w in _weights(run) if w.grad is not None]))
        off = torch.stack(steps).mean(0) - total / 8
        assert float(off.abs().max()) < 6 * 0.3 * BOUND / 8 / 300**0.5


# Noise.


def _noisy_steps(run: Run, steps: int) -> torch.Tensor:
    """Gradients of steps whose draw is empty: noise alone."""
    found = []
    for _ in range(steps):
        run.journal = Journal()
        run.model.zero_grad(set_to_none=True)
        _one(run).gradients(run)
        found.append(torch.cat([w.grad.flatten() for w in _weights(run) if w.grad is not None]))
    return torch.stack(found)


@pytest.mark.parametrize("noise", ["os", "torch"])
def test_the_noise_of_a_step_has_the_variance_of_the_account(tmp_path: Path, noise: str) -> None:
    run = _begun(tmp_path, noise_multiplier=1.3, noise_source=noise)
    values = _noisy_steps(run, 300).double() / (1.3 * BOUND / 8)
    statistic, n = float(values.square().sum()), values.numel()
    assert n > 300_000
    assert min(stats.chi2.cdf(statistic, n), stats.chi2.sf(statistic, n)) > RARE


def test_noise_is_added_once_however_many_chunks_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _text_run(tmp_path, [_choice(physical_batch=1, expected_batch=20, steps=3)])
    calls: list[float] = []
    module = __import__("engine.instructions.privacy.i37_dp_sgd", fromlist=["privatise"])
    real: Callable[..., None] = module.privatise

    def counted(sums: list[torch.Tensor], *args: Any) -> None:
        calls.append(float(sums[0].numel()))
        real(sums, *args)

    monkeypatch.setattr(module, "privatise", counted)
    trained(run, tmp_path / "run")
    assert len(calls) == run.clock.step == 3


def test_nothing_secret_is_in_memory_or_in_a_snapshot(tmp_path: Path) -> None:
    run = trained(_text_run(tmp_path, [_choice()]), tmp_path / "run")
    assert set(run.state("dp_sgd")) == {"rate", "bound", "delta", "weights"}
    assert not run.memory.get("panel")


# The account.


def test_every_draw_is_written_down_before_its_step(tmp_path: Path) -> None:
    run = _text_run(tmp_path, [_choice()])
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
    run = _begun(tmp_path)
    total = _clipped_sum(run, [0, 1])

    def refuse(*_: object) -> None:
        raise BudgetExhausted("no more")

    assert run.journal is not None
    monkeypatch.setattr(run.journal, "append", refuse)
    with pytest.raises(BudgetExhausted):
        _one(run).gradients(run)
    left = torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in _weights(run)])
    assert torch.equal(left, total), "no noise was drawn for it either"


def test_without_a_journal_nothing_is_drawn(tmp_path: Path) -> None:
    run = _text_run(tmp_path, [_choice()])
    run.journal = None
    with pytest.raises(EngineError, match="no journal"):
        begin(run, None)


def test_repeated_steps_count_again_and_the_plan_caps_all_attempts(tmp_path: Path) -> None:
    """A run that is killed and goes on from its snapshot: epsilon is never below what the attempts drew together."""
    path = tmp_path / FILENAME
    first = _text_run(tmp_path, [_choice(steps=8)])
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

    again = _text_run(tmp_path, [_choice(steps=8)])
    again.journal = Journal(path)
    train(again, Snapshots(tmp_path / "run", again.sink), Interrupt())
    assert again.journal.count == 8, "three more, which the plan still held"
    assert again.clock.step == 2 + 3
    section = sections(again)["privacy"]
    assert (section["steps"], section["epsilon"]) == (8, accounting.epsilon([_plan(again)], section["delta"]))


def test_a_run_that_lost_all_its_draws_says_so(tmp_path: Path) -> None:
    run = _text_run(tmp_path, [_choice(steps=2)])
    run.journal = Journal(None, PrivacyBudget(recorded=(_plan(run),)))
    with pytest.raises(BudgetExhausted, match="none of them left a snapshot"):
        begin(run, None)


def test_a_budget_that_does_not_reach_stops_the_run_before_its_first_draw(tmp_path: Path) -> None:
    run = _text_run(tmp_path, [_choice()])
    run.journal = Journal(tmp_path / FILENAME, PrivacyBudget(epsilon=0.5, delta=0.01))
    with pytest.raises(BudgetExhausted):
        begin(run, None)
    assert not (tmp_path / FILENAME).exists()


def _plan(run: Run) -> PrivacyEvent:
    (event,) = accounting.planned(run.spec, len(run.data.train))
    return event


def test_the_receipt_tells_what_was_drawn(tmp_path: Path) -> None:
    run = _text_run(tmp_path, [_choice(noise_multiplier=None, epsilon=3.0)])
    assert run.journal is not None
    run.journal = Journal(None, PrivacyBudget(spent=(PrivacyEvent(q=0.1, sigma=2.0, count=10),)))
    trained(run, tmp_path / "run")
    section = sections(run)["privacy"]
    plan = _plan(run)
    assert section["epsilon"] == accounting.epsilon([plan], section["delta"]) <= 3.0
    assert (section["sampling_rate"], section["noise_multiplier"], section["steps"]) == (plan.q, plan.sigma, 6)
    assert section["dataset_total_epsilon"] > section["epsilon"]
    assert (section["unit"], section["relation"], section["noise_source"]) == ("record", "add or remove one", "os")
    assert "dp-accounting" in section["accountant"]
    assert "test rows" in section["covers"]


def test_epsilon_is_told_on_the_way_and_never_below_what_was_spent(tmp_path: Path) -> None:
    run = trained(_text_run(tmp_path, [_choice(steps=30)]), tmp_path / "run")
    series = told(run, "epsilon")
    assert len(series) == 30
    assert series == sorted(series)
    delta = run.state("dp_sgd")["delta"]
    for step in (1, 11, 30):
        assert series[step - 1] >= accounting.epsilon([_plan(run).times(step)], delta)
    assert series[-1] == sections(run)["privacy"]["epsilon"]


# What is trained, and what is refused.


@pytest.mark.parametrize(
    ("scope", "moves"),
    [("head", {"classifier", "pooler"}), ("bias", {"classifier", "pooler", "bias"}), ("full", {"weight"})],
)
def test_a_scope_trains_its_part_and_nothing_else(tmp_path: Path, scope: str, moves: set[str]) -> None:
    run = _text_run(tmp_path, [_choice(scope=scope)])
    fresh = run.task.build().state_dict()
    begin(run, None)
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    trained(run, tmp_path / "run")
    moved = {name for name, weight in run.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved
    assert set(before) == set(fresh)
    if scope != "full":
        assert all(moves & set(name.split(".")) for name in moved)
    else:
        assert len(moved) > 0.9 * len(before)


def _one_by_one(run: Run, rows: list[int]) -> torch.Tensor:
    """The clipped sum by a pass for each row alone."""
    data, total = run.data, torch.zeros(sum(weight.numel() for weight in _weights(run)))
    for row in rows:
        batch = run.task.collate([data.examples["train"][row]], [int(data.train.labels[row])])
        loss = run.task.losses(run.task.forward(run.model, batch), batch).sum()
        own = torch.autograd.grad(loss, _weights(run), allow_unused=True)
        parts = [torch.zeros_like(w) if g is None else g for w, g in zip(_weights(run), own, strict=True)]
        flat = torch.cat([part.flatten() for part in parts])
        total += flat * min(1.0, BOUND / float(flat.norm()))
    return total


def test_adapters_are_clipped_example_by_example(tmp_path: Path) -> None:
    run = _text_run(tmp_path, [{"number": 19, "rank": 4}, _choice()])
    begin(run, None)
    run.model.eval()
    names = [name for name, weight in run.model.named_parameters() if weight.requires_grad]
    assert all("lora_" in name or "modules_to_save" in name for name in names)
    torch.testing.assert_close(_clipped_sum(run, [0, 1, 2, 3]), _one_by_one(run, [0, 1, 2, 3]), rtol=1e-4, atol=1e-5)


def test_a_language_model_is_trained_through_its_adapters(tmp_path: Path) -> None:
    """A long text is cut into several rows of one id: only its first part is ever drawn."""
    assert _faults(37, task="causal_lm", facts=("pretrained",)) == ["/instructions/0 missing_need"]
    choice = _choice(physical_batch=4)
    run = tiny_lm_run(tmp_path, [{"number": 19, "rank": 2}, choice], batch_size=32, max_length=8)
    begin(run, None)
    run.model.eval()
    torch.testing.assert_close(_clipped_sum(run, [0, 1, 2]), _one_by_one(run, [0, 1, 2]), rtol=1e-4, atol=1e-5)
    ids = run.data.train.ids
    drawn_from = list(_one(run).order(run, 0))
    assert len(drawn_from) == len(set(ids.tolist())) < len(ids)
    trained(run, tmp_path / "run")
    assert run.clock.step == 6
    assert told(run, "epsilon")
    assert not told(run, "train_loss")


def _faults(*chosen: Any, task: str = "text_classification", facts: tuple[str, ...] = (), **fields: Any) -> list[str]:
    spec = Spec.model_validate({"task": task, "dataset": "none", "instructions": chosen, **fields})
    try:
        Plan.of(spec, facts)
    except InvalidPlan as refused:
        return [f"{fault.pointer} {fault.code}" for fault in refused.faults if fault.remedy]
    return []


@pytest.mark.parametrize(
    ("chosen", "fields", "fault"),
    [
        ({"epsilon": 3.0, "noise_multiplier": 1.0}, {}, "/instructions/0/epsilon one_of_two"),
        ({"steps": 5}, {"training": {"max_steps": 9}}, "/instructions/0/steps one_of_two"),
        ({"expected_batch": 9}, {"training": {"batch_size": 9}}, "/instructions/0/expected_batch one_of_two"),
        ({}, {"training": {"keep": "best"}}, "/instructions/0 private_choice"),
        ({}, {"include_inputs": True}, "/instructions/0 rows_in_the_receipt"),
        ({}, {"compare": "untreated"}, "/instructions/0 second_training"),
        ({"epsilon": 3.0}, {"limits": {"max_epsilon": 1.0}}, "/instructions/0/epsilon limit_missed"),
        ({"scope": "lora"}, {}, "/instructions/0/scope missing_need"),
    ],
)
def test_what_breaks_the_guarantee_is_refused(chosen: dict[str, Any], fields: dict[str, Any], fault: str) -> None:
    assert _faults({"name": "dp_sgd", **chosen}, **fields) == [fault]


def test_a_plain_request_is_not(tmp_path: Path) -> None:
    assert _faults(37, training={"epochs": 9, "batch_size": 64}) == []
    assert _faults({"name": "dp_sgd", "steps": 9, "expected_batch": 64}, limits={"max_epsilon": 8.0}) == []


@pytest.mark.parametrize("fact", ["couples_rows", "reads_training_rows", "mixed_labels", "window", "loss_scaling"])
def test_refusals_are_by_fact(fact: str) -> None:
    assert _faults(37, facts=(fact,)) == ["/instructions/0 excluded"]


def test_what_reads_training_rows_is_refused_with_the_reason() -> None:
    for number, kind in CATALOGUE.items():
        one = kind.model_validate({"name": kind.model_fields["name"].default})
        if "text_classification" in kind.tasks and one.provides & {"couples_rows", "reads_training_rows"}:
            assert any(fault.endswith("excluded") for fault in _faults(number, 37)), number


def test_a_layer_without_own_gradients_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _text_run(tmp_path, [_choice(scope="full")])
    build = run.task.build

    def with_batch_norm() -> torch.nn.Module:
        model = build()
        model.add_module("mixer", torch.nn.BatchNorm1d(3))
        return model

    monkeypatch.setattr(run.task, "build", with_batch_norm)
    with pytest.raises(InvalidPlan, match="mixer is batch norm"):
        begin(run, None)


@pytest.mark.parametrize(("scope", "rate"), [(None, 1e-3), ("head", 1e-3), ("full", 1e-4)])
def test_a_head_learns_at_ten_times_the_rate_of_a_whole_model(tmp_path: Path, scope: str | None, rate: float) -> None:
    run = text_run(tmp_path, [_choice(scope=scope)], batch_size=32, learning_rate=None)
    begin(run, None)
    assert run.optimizer.param_groups[0]["initial_lr"] == pytest.approx(rate)
    assert run.spec.resolved(pretrained=True)["training"]["learning_rate"] == pytest.approx(rate)
