"""40 draws, trains, clips and noises clients as its account says; each known fault is caught by a test here."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from engine import accounting
from engine.accounting import PrivacyEvent
from engine.errors import BudgetExhausted, InvalidData, InvalidPlan
from engine.events import Listed, PrivacyDrawn, StepDone
from engine.federated import MEASURED, clients_in, clipped, too_few
from engine.instruction import Window
from engine.journal import Journal
from engine.plan import Plan
from engine.prepare import begin
from engine.receipt import sections
from engine.run import Run
from engine.spec import Spec
from tests.engine.runs import tiny_run, trained
from tests.engine.tiny import tiny_text_rows

CLIENTS, RATE, BOUND = 60, 0.5, 0.3


def choice(**given: Any) -> dict[str, Any]:
    own = {"rounds": 4, "client_rate": RATE, "noise_multiplier": 1.0, "clip_norm": BOUND, "local_steps": 2}
    own["clients"] = CLIENTS
    return {"name": "dp_gradient_aggregation", **own, **given}


def run_of(folder: Path, count: int = 300, clients: int = CLIENTS, **given: Any) -> Run:
    """A text run whose rows are dealt to clients."""
    rows = tiny_text_rows(count)
    rows = replace(rows, groups=np.array([f"client-{i % clients}" for i in range(count)]))
    run = tiny_run(folder, [choice(**given)], rows, batch_size=32)
    run.journal = Journal(None)
    return run


def begun(folder: Path, **given: Any) -> Run:
    run = run_of(folder, **given)
    begin(run, None)
    run.model.eval()  # no dropout: what a client moves then depends on its rows alone
    return run


def one(run: Run) -> Any:
    return run.plan.slot("backward")


def weights_of(run: Run) -> list[torch.nn.Parameter]:
    return [weight for weight in run.model.parameters() if weight.requires_grad]


def batch_of(run: Run, rows: list[int]) -> Any:
    examples, labels = run.data.examples["train"], run.data.train.labels
    return run.task.collate([examples[i] for i in rows], [int(labels[i]) for i in rows])


def moved(run: Run, rows: list[int], scale: float = 1.0) -> Tensor:
    """What one client adds to the sum, as one vector."""
    batch = batch_of(run, rows)
    for weight in weights_of(run):
        weight.grad = None
    one(run).backward(run, lambda: scale * run.task.losses(run.task.forward(run.model, batch), batch), 1.0)
    return torch.cat([weight.grad.flatten() for weight in weights_of(run) if weight.grad is not None])


def test_a_client_moves_by_its_own_steps_from_the_present_weights(tmp_path: Path) -> None:
    run = begun(tmp_path, clip_norm=1e4)
    rows = list(clients_in(run.data.train.groups)["client-3"])
    before = [weight.detach().clone() for weight in weights_of(run)]
    found = moved(run, rows)
    # Slow and obvious: two plain steps on a copy.
    batch, rate = batch_of(run, rows), one(run).local_learning_rate
    for _ in range(2):
        run.model.zero_grad()
        run.task.losses(run.task.forward(run.model, batch), batch).mean().backward()
        with torch.no_grad():
            for weight in weights_of(run):
                assert weight.grad is not None
                weight.sub_(weight.grad, alpha=rate)
    expected = torch.cat([(was - weight).flatten() for was, weight in zip(before, weights_of(run), strict=True)])
    torch.testing.assert_close(found, expected.detach())


def test_the_weights_stay_where_they_were_until_the_round_ends(tmp_path: Path) -> None:
    run = begun(tmp_path)
    before = [weight.detach().clone() for weight in weights_of(run)]
    moved(run, [0, 1, 2])
    assert all(torch.equal(was, weight) for was, weight in zip(before, weights_of(run), strict=True))


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e9])
def test_one_client_moves_the_sum_by_the_bound_at_most(tmp_path: Path, scale: float) -> None:
    """All tensors as one vector: clipped one by one they would reach the bound times the root of their number."""
    run = begun(tmp_path, clip_norm=0.01)
    assert len(weights_of(run)) > 1
    assert float(moved(run, [0, 1, 2], scale).norm()) == pytest.approx(0.01, rel=1e-4)


def test_a_client_without_numbers_counts_as_zero(tmp_path: Path) -> None:
    run = begun(tmp_path)
    assert not moved(run, [0, 1, 2], math.nan).any()
    assert all(bool(weight.isfinite().all()) for weight in weights_of(run))
    assert [float(part.norm()) for part in clipped([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)] == [
        pytest.approx(0.6),
        pytest.approx(0.8),
    ]


def test_the_order_of_clients_changes_nothing(tmp_path: Path) -> None:
    run, sums = begun(tmp_path), []
    for order in ([0, 1, 2], [2, 0, 1]):
        run.model.zero_grad(set_to_none=True)
        for client in order:
            batch = batch_of(run, [client * 3, client * 3 + 1])
            one(run).backward(
                run,
                lambda batch=batch: run.task.losses(run.task.forward(run.model, batch), batch),
                1.0,
            )
        sums.append(torch.cat([weight.grad.flatten() for weight in weights_of(run) if weight.grad is not None]))
    torch.testing.assert_close(sums[0], sums[1])


@pytest.mark.parametrize("huge", [False, True])
def test_noise_is_drawn_once_a_round_and_does_not_depend_on_the_updates(tmp_path: Path, huge: bool) -> None:
    """The article's fault 2: a scale read off the data would grow with one client's update."""
    run = begun(tmp_path, rounds=100_000)
    divisor = RATE * CLIENTS
    found: list[Tensor] = []
    for _ in range(60):
        run.model.zero_grad(set_to_none=True)
        sums = moved(run, [0, 1, 2], 1e6 if huge else 1.0) if len(found) == 0 else torch.zeros(0)
        one(run).gradients(run)
        noise = torch.cat([weight.grad.flatten() for weight in weights_of(run) if weight.grad is not None])
        found.append((noise - sums / divisor if len(sums) else noise).double())
    values = torch.cat(found)
    statistic = float(values.square().sum()) / (1.0 * BOUND / divisor) ** 2
    low, high = stats.chi2.ppf([1e-5, 1 - 1e-5], len(values))
    assert low < statistic < high


def test_each_client_is_drawn_by_itself(tmp_path: Path) -> None:
    run = begun(tmp_path, rounds=400)
    windows = [window for epoch in range(1) for window in one(run).grouping(run, iter(()), epoch)]
    assert len(windows) == 400
    assert {window.divisor for window in windows} == {RATE * CLIENTS}
    clients = clients_in(run.data.train.groups)
    owner = {int(row): name for name, rows in clients.items() for row in rows}
    times: dict[str, int] = dict.fromkeys(clients, 0)
    for window in windows:
        names = [{owner[row] for row in chunk} for chunk in window.chunks]
        assert all(len(of_chunk) == 1 for of_chunk in names)
        for of_chunk in names:
            times[of_chunk.pop()] += 1
    low, high = stats.binom.ppf([1e-6, 1 - 1e-6], 400, RATE)
    assert all(low <= count <= high for count in times.values())
    sizes = [len(window.chunks) for window in windows]
    assert len(set(sizes)) > 5


def test_rows_without_a_client_belong_to_nobody() -> None:
    found = clients_in(np.array(["b", "", "a", "b"]))
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [2], "b": [0, 3]}
    assert clients_in(None) == {}


def test_a_client_with_many_rows_uses_as_many(tmp_path: Path) -> None:
    run = begun(tmp_path, client_rows=2, rounds=20)
    chunks = [chunk for window in one(run).grouping(run, iter(()), 0) for chunk in window.chunks]
    assert {len(chunk) for chunk in chunks} == {2}
    assert len(set(chunks)) > CLIENTS


def test_a_whole_run_learns_and_tells_what_it_spent(tmp_path: Path) -> None:
    run = trained(run_of(tmp_path, rounds=20, noise_multiplier=0.5, local_steps=3, clip_norm=2.0), tmp_path)
    assert isinstance(run.sink, Listed)
    drawn = [event for event in run.sink.events if isinstance(event, PrivacyDrawn)]
    assert [event.drawn for event in drawn] == list(range(1, 21))
    told = {name for event in run.sink.events if isinstance(event, StepDone) for name in event.values}
    assert told <= {"epsilon", "learning_rate", "valid_loss", "valid_score"}
    privacy = sections(run)["privacy"]
    delta = accounting.default_delta(CLIENTS)
    assert privacy["epsilon"] == accounting.epsilon([PrivacyEvent(q=RATE, sigma=0.5, count=20)], delta)
    assert (privacy["unit"], privacy["steps"], privacy["sampling_rate"]) == ("client", 20, RATE)
    assert privacy["delta"] == delta


def test_no_round_is_drawn_beyond_the_plan(tmp_path: Path) -> None:
    run = begun(tmp_path, rounds=1)
    one(run).gradients(run)
    with pytest.raises(BudgetExhausted):
        one(run).gradients(run)


def test_few_clients_are_refused_with_the_figures(tmp_path: Path) -> None:
    body = {"task": "text_classification", "dataset": "rows", "instructions": [choice(client_rate=0.2, clients=None)]}
    with pytest.raises(InvalidPlan) as caught:
        Plan.of(Spec.model_validate(body), {"pretrained", "clients_by:client", "clients:29"})
    (fault,) = caught.value.faults
    assert fault.code == "too_few_clients"
    assert MEASURED in fault.detail
    assert "dp_sgd (37)" in fault.remedy
    # Half of them is the most that may be drawn, so no rate makes 29 clients enough.
    assert too_few(29, 0.5) is not None
    assert too_few(1_500, 0.2) is None
    with pytest.raises(InvalidData, match="drown"):
        begin(run_of(tmp_path, clients=29), None)


def test_the_figure_of_few_clients_is_the_articles() -> None:
    page = (Path(__file__).parents[3] / "docs/article.md").read_text(encoding="utf-8").partition("## 40.")[2]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    assert table[0][2] == "accuracy, 100 clients"
    plain, private = (
        next(float(row[2].split()[0]) for row in table if row[0].startswith(name))
        for name in ("no noise", "ours, epsilon 1")
    )
    assert MEASURED.startswith(f"100 clients lost {100 * (plain - private):.1f} points of accuracy at epsilon 1")


@pytest.mark.parametrize(
    ("given", "facts", "code"),
    [
        ({"epsilon": 1.0}, {"clients:60"}, "one_of_two"),
        ({}, {"ungrouped"}, "no_clients"),
        ({"client_field": "author"}, {"clients_by:client", "clients:60", "grouped_by:author"}, "other_field"),
        ({"clients": 30}, {"clients_by:client", "clients:30"}, "too_few_clients"),
        ({"clients": 100}, {"clients_by:client", "clients:1500"}, "more_clients"),
    ],
)
def test_what_cannot_be_private_by_client_is_refused(given: dict[str, Any], facts: set[str], code: str) -> None:
    body = {"task": "text_classification", "dataset": "rows", "instructions": [choice(**given)]}
    with pytest.raises(InvalidPlan) as caught:
        Plan.of(Spec.model_validate(body), {"pretrained", *facts})
    assert [fault.code for fault in caught.value.faults] == [code]


def test_an_empty_round_is_a_step_of_noise_alone(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.optimizer.zero_grad(set_to_none=True)
    assert Window((), 30.0).divisor == 30.0
    one(run).gradients(run)
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in weights_of(run))
