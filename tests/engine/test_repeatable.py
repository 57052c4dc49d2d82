"""On an accelerator PyTorch insists on one order of each sum, or the run tells which operation has none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.events import Listed, Warned
from engine.randomness import settle_sums
from engine.repeatable import insist_on_order
from engine.run import Run
from tests.engine.tiny_run import begun, text_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run whose model is said to lie on a GPU."""
    made = begun(text_run(tmp_path, [20]))
    monkeypatch.setattr("engine.repeatable.device_of", lambda _: torch.device("cuda"))
    settle_sums()
    yield made
    settle_sums()


def _refuse(run: Run, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def refused(*_: object) -> torch.Tensor:
        raise RuntimeError(reason)

    monkeypatch.setattr(run.task, "forward", refused)


def test_a_model_with_an_order_is_held_to_it_and_left_as_it_was(run: Run) -> None:
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    run.model.train()
    insist_on_order(run)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert run.model.training
    assert all(weight.grad is None for weight in run.model.parameters())


def test_an_operation_without_an_order_is_told_and_the_run_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(run, monkeypatch, "pooling_cuda does not have a deterministic implementation, but you set ...")
    insist_on_order(run)
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert isinstance(run.sink, Listed)
    (told,) = [event for event in run.sink.events if isinstance(event, Warned)]
    assert told.code == "not_repeatable"
    assert told.detail.startswith("pooling_cuda ")


def test_another_error_is_none_of_its_business(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(run, monkeypatch, "CUDA out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        insist_on_order(run)


def test_a_processor_is_left_alone(tmp_path: Path) -> None:
    settle_sums()
    insist_on_order(begun(text_run(tmp_path)))
    assert torch.is_deterministic_algorithms_warn_only_enabled()
