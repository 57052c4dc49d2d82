"""The loop against one written by hand, and a run that is stopped against one that is not."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoint import Snapshots
from engine.coupling import widths
from engine.dropout import cheap_draws
from engine.errors import Diverged, TimeLimit
from engine.events import Listed, StepDone, Warned
from engine.interrupt import StopRequested
from engine.optimizer import decay_groups
from engine.randomness import generator, reseed
from engine.run import InnerSink, Run
from engine.train import again, train
from tests.engine.runs import tiny_image_run, tiny_pair_run, tiny_run, trained
from tests.engine.stopping import StopAt, same, weights
from tests.engine.tiny import tiny_text_rows


def steps(run: Run) -> list[StepDone]:
    assert isinstance(run.sink, Listed)
    return [event for event in run.sink.events if isinstance(event, StepDone)]


def by_hand(run: Run) -> dict[str, torch.Tensor]:
    """The plainest loop that could be written for an empty plan."""
    training = run.spec.training
    reseed(training.seed, "model")
    model = run.task.build().train()
    optimizer = torch.optim.AdamW(
        decay_groups(model, 0.01), lr=training.learning_rate or 0, betas=(0.9, 0.999), fused=True
    )
    rows, step = len(run.data.train), 0
    total = training.epochs * -(-rows // training.batch_size)
    warm = max(1, round(0.06 * total))
    for epoch in range(training.epochs):
        order = generator(training.seed, "order", epoch).permutation(rows)
        for number, start in enumerate(range(0, rows, training.batch_size)):
            chosen = order[start : start + training.batch_size].tolist()
            examples = [run.data.examples["train"][i] for i in chosen]
            batch = run.task.collate(examples, [int(run.data.train.labels[i]) for i in chosen])
            rate = min((step + 1) / warm, (total - step) / (total - warm))
            for group in optimizer.param_groups:
                group["lr"] = (training.learning_rate or 0) * rate
            optimizer.zero_grad()
            reseed(training.seed, "chunk", epoch, number, 0)
            with cheap_draws(torch.device("cpu")):
                logits = run.task.forward(model, batch)
            loss = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
            (loss.sum() / len(chosen)).backward()
            optimizer.step()
            step += 1
    return model.state_dict()


def test_an_empty_plan_is_the_loop_that_one_would_write_by_hand(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, epochs=2, batch_size=6), tmp_path)
    assert same(weights(run), by_hand(run))


PLANS = {
    "nothing": [],
    "many": [11, 20, 22, {"name": "gradient_accumulation", "steps": 2}],
    "half": [{"name": "autocast", "dtype": "float16"}, 28],
    "compressed": [{"name": "structured_pruning", "ratio": 0.3}, 49, 51],
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_a_run_that_is_stopped_and_resumed_gives_the_same_bytes(tmp_path: Path, plan: list[object]) -> None:
    whole = weights(trained(tiny_run(tmp_path / "a", plan, epochs=3), tmp_path / "a"))
    for stop in (1, 5, 9, 40):  # in the first epoch, across epochs, and beyond the end
        run = tiny_run(tmp_path / "b", plan, epochs=3)
        try:
            train(run, Snapshots(tmp_path / "b", run.sink), StopAt(run, stop))
        except StopRequested:
            continue
    assert run.clock.trained
    assert same(weights(run), whole)


def test_an_image_run_resumes_with_its_batch_norm(tmp_path: Path) -> None:
    whole = weights(trained(tiny_image_run(tmp_path / "a", epochs=2), tmp_path / "a"))
    run = tiny_image_run(tmp_path / "b", epochs=2)
    with pytest.raises(StopRequested):
        train(run, Snapshots(tmp_path / "b", run.sink), StopAt(run, 3))
    resumed = trained(tiny_image_run(tmp_path / "b", epochs=2), tmp_path / "b")
    assert same(weights(resumed), whole)
    assert isinstance(resumed.sink, Listed)
    first = next(one for one in resumed.sink.events if isinstance(one, StepDone))
    assert (first.step, first.total_steps, first.values) == (3, resumed.clock.total, {})


def test_a_run_over_pairs_resumes_with_both_towers(tmp_path: Path) -> None:
    plan = [7, 11, 22]
    whole = weights(trained(tiny_pair_run(tmp_path / "a", plan, epochs=2), tmp_path / "a"))
    for stop in (3, 9):
        run = tiny_pair_run(tmp_path / "b", plan, epochs=2)
        with pytest.raises(StopRequested):
            train(run, Snapshots(tmp_path / "b", run.sink), StopAt(run, stop))
    assert same(weights(trained(tiny_pair_run(tmp_path / "b", plan, epochs=2), tmp_path / "b")), whole)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first = weights(trained(tiny_run(tmp_path / "a", seed=1), tmp_path / "a"))
    assert not same(first, weights(trained(tiny_run(tmp_path / "b", seed=2), tmp_path / "b")))


def test_every_step_tells_the_panel_and_the_last_has_rate_near_zero(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, epochs=2), tmp_path)
    told = [event for event in steps(run) if "train_loss" in event.values]
    assert [event.step for event in told] == list(range(1, 17))
    assert {event.total_steps for event in told} == {16}
    expected = {"train_loss", "learning_rate", "gradient_norm", "step_seconds", "examples_per_second", "memory_bytes"}
    assert set(told[0].values) == expected | {"padding_fraction"}
    assert 0 < told[-1].values["learning_rate"] <= 1e-3 / 15 + 1e-9
    valid = [event.values for event in steps(run) if "valid_score" in event.values]
    assert len(valid) == 2


def test_training_learns(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, rows=tiny_text_rows(400), epochs=8, learning_rate=3e-3), tmp_path)
    scores = [event.values["valid_score"] for event in steps(run) if "valid_score" in event.values]
    losses = [event.values["train_loss"] for event in steps(run) if "train_loss" in event.values]
    assert scores[-1] >= 0.9
    assert sum(losses[-40:]) < 0.3 * sum(losses[:40])


def test_max_steps_ends_the_training_and_its_schedule(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, epochs=5, max_steps=3), tmp_path)
    assert (run.clock.step, run.clock.total) == (3, 3)


def test_the_best_weights_are_kept_where_asked(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, epochs=6, keep="best", learning_rate=0.05), tmp_path)
    scores = [event.values["valid_score"] for event in steps(run) if "valid_score" in event.values]
    rows = run.data.valid
    logits = run.task.forward(
        run.model.eval(), run.task.collate(list(run.data.examples["valid"]), rows.labels.tolist())
    )
    assert float((logits.argmax(1).numpy() == rows.labels).mean()) == max(scores)


def test_a_loss_that_is_not_finite_ends_the_run_without_a_snapshot_of_it(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, epochs=2, learning_rate=1.0)
    build = run.task.build

    def broken() -> torch.nn.Module:
        model = build()
        next(model.parameters()).data.fill_(float("nan"))
        return model

    run.task.build = broken  # type: ignore[method-assign]
    with pytest.raises(Diverged, match="step 1"):
        trained(run, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*.pt"))


def test_weights_that_give_no_numbers_after_the_last_step_end_the_run_as_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path)
    nothing = np.full((len(run.data.valid), 2), np.nan, np.float32)
    monkeypatch.setattr("engine.validate.eager_answers", lambda *_: nothing)
    with pytest.raises(Diverged, match="validation rows is nan after step 8"):
        trained(run, tmp_path)


def test_a_wish_that_comes_during_the_last_step_is_heeded_after_the_last_snapshot(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    with pytest.raises(StopRequested):
        train(run, Snapshots(tmp_path, run.sink), StopAt(run, 8))
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.pt")] == ["step-000000008-1.pt"]


def test_a_wish_to_stop_is_no_error_that_a_tracer_may_swallow(tmp_path: Path) -> None:
    def stopped(_: torch.nn.Module) -> torch.Tensor:
        raise StopRequested

    with pytest.raises(StopRequested):
        widths(tiny_run(tmp_path).task.build(), stopped)


def test_the_best_of_no_validation_rows_is_told_to_be_the_last(tmp_path: Path) -> None:
    rows = tiny_text_rows(80)
    rows = rows.assigned(np.where(rows.splits == "valid", "train", rows.splits))
    run = trained(tiny_run(tmp_path, rows=rows, keep="best", epochs=2), tmp_path)
    assert [event.code for event in run.sink.events if isinstance(event, Warned)] == ["nothing_to_choose_by"]  # type: ignore[attr-defined]


def test_the_time_limit_counts_the_wait_for_batches(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, max_seconds=0.5)
    collate = run.task.collate

    def slow(*given: Any) -> dict[str, torch.Tensor]:
        time.sleep(0.3)
        return collate(*given)

    run.task.collate = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(TimeLimit):
        trained(run, tmp_path)


def test_the_time_limit_ends_the_run_after_a_snapshot(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, max_seconds=1e-6)
    with pytest.raises(TimeLimit, match="limit"):
        trained(run, tmp_path)
    assert list((tmp_path / "checkpoints").glob("*.pt"))


def test_a_last_row_alone_joins_the_batch_before_it(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, batch_size=21), tmp_path)  # 64 training rows: 21, 21, 22
    assert run.clock.step == 3


def test_again_trains_on_with_a_memory_of_its_own(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, [22]), tmp_path)
    before, memory = weights(run), {name: dict(value) for name, value in run.memory.items()}
    told = len(steps(run))
    model = again(run, run.model, steps=11)  # more than one epoch
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert {name: dict(value) for name, value in run.memory.items()} == memory
    assert len(steps(run)) == told


def test_all_weights_train_on_at_a_tenth_of_the_rate_of_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[str, float] = {}
    for name, plan in (("whole", [22]), ("adapters", [19])):
        run = trained(tiny_run(tmp_path / name, plan, max_steps=1), tmp_path / name)

        def looked(inner: Run, *_: object, name: str = name) -> None:
            rates[name] = inner.optimizer.param_groups[0]["initial_lr"]
            inner.clock.step = inner.clock.total

        with monkeypatch.context() as patch:
            patch.setattr("engine.train._epoch", looked)
            again(run, run.model, steps=3)
    assert rates == {"whole": 1e-3, "adapters": pytest.approx(1e-4)}


def test_rows_are_seen_once_an_epoch(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, epochs=1, batch_size=5), tmp_path)
    drawn = generator(run.spec.training.seed, "order", 0).permutation(len(run.data.train))
    assert sorted(drawn.tolist()) == list(range(64))
    assert not np.array_equal(drawn, generator(run.spec.training.seed, "order", 1).permutation(64))


def test_training_again_counts_towards_the_time_limit(tmp_path: Path) -> None:
    run = trained(tiny_run(tmp_path, max_seconds=1000.0), tmp_path)
    run.clock.seconds = 1000.0
    with pytest.raises(TimeLimit):
        again(run, run.model, steps=8)


def test_warnings_of_an_inner_training_are_those_of_the_run(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    Run(run.spec, run.plan, InnerSink(run)).warn("code", "said inside")
    assert run.memory["warnings"]["told"] == ["said inside"]
