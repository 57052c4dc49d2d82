"""Figures of private rows are dropped at one place, and there is no other way to a listener."""

import ast
from pathlib import Path

from engine.events import Listed, StepDone
from engine.guard import public_effects
from engine.plan import Plan
from engine.run import Run
from engine.spec import Spec
from tests.engine.tiny_run import text_run, trained

FIGURES = {
    "train_loss": 0.5,
    "valid_loss": 0.6,
    "valid_score": 0.7,
    "valid_token_accuracy": 0.8,
    "gradient_norm": 1.0,
    "clipped_fraction": 0.2,
    "loss_scale": 8.0,
    "padding_fraction": 0.1,
    "examples_per_second": 30.0,
    "step_seconds": 0.1,
    "memory_bytes": 1e9,
    "learning_rate": 1e-3,
    "epsilon": 1.5,
    "a_new_figure": 1.0,
}
PUBLIC = {"learning_rate", "epsilon"}


def _run(dataset: object, *chosen: object) -> Run:
    spec = Spec.model_validate({"task": "text_classification", "dataset": dataset, "instructions": chosen})
    return Run(spec, Plan.of(spec), Listed())


def _told(run: Run) -> set[str]:
    assert isinstance(run.sink, Listed)
    return {name for event in run.sink.events if isinstance(event, StepDone) for name in event.values}


def test_a_private_run_tells_what_is_on_the_list_and_nothing_else() -> None:
    run = _run("one", 37)
    run.tell(1, FIGURES)
    assert _told(run) == PUBLIC
    assert set(run.state("curves")) == PUBLIC, "what is kept for the report, and in snapshots, is told as well"


def test_a_validation_set_of_its_own_is_nobodys_secret() -> None:
    run = _run({"train": "a", "valid": "b", "test": "c"}, 37)
    run.tell(1, FIGURES)
    assert _told(run) == PUBLIC | {"valid_loss", "valid_score", "valid_token_accuracy"}
    stands_in = _run({"train": "a", "test": "c"}, 37)
    stands_in.tell(1, FIGURES)
    assert _told(stands_in) == PUBLIC, "a tenth of the training rows stands in for it"


def test_steps_of_which_nothing_is_left_are_not_told() -> None:
    run = _run("one", 37)
    run.tell(1, {"train_loss": 0.5})
    assert run.sink.events == []  # type: ignore[attr-defined]  # a Listed


def test_without_privacy_everything_is_told() -> None:
    run = _run("one")
    run.tell(1, FIGURES)
    assert _told(run) == set(FIGURES)


def test_a_whole_private_run_leaks_no_figure(tmp_path: Path) -> None:
    run = trained(text_run(tmp_path, [1, 20, {"name": "dp_sgd", "steps": 4}], batch_size=32), tmp_path / "run")
    assert _told(run) == PUBLIC
    assert not {"train_loss", "valid_loss"} & set(run.state("curves"))


def test_effects_of_what_saw_training_rows_are_not_told() -> None:
    plan = _run("one", 1, 20, 37).plan
    assert set(public_effects({1: {"rows_changed": 3.0}, 20: {"steps": 1.0}, 37: {"epsilon": 8.0}}, plan)) == {20, 37}
    open_plan = _run("one", 1, 20).plan
    assert set(public_effects({1: {"rows_changed": 3.0}, 20: {}}, open_plan)) == {1, 20}


def test_every_figure_of_a_step_goes_through_the_run() -> None:
    """An event of a step that is made elsewhere would pass by the guard, but for one that tells progress alone."""
    root = Path(__file__).parents[2]
    makers = {
        path.relative_to(root).as_posix()
        for path in (root / "engine").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("StepDone")
        if "values={}" not in ast.unparse(node)
    }
    assert makers == {"engine/run.py"}
