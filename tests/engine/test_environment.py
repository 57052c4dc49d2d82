"""Where a receipt says that a run took place."""

import platform

import pytest

from engine.environment import environment
from engine.events import Listed
from engine.plan import Plan
from engine.run import Run
from engine.spec import Spec


@pytest.mark.parametrize(
    ("kind", "named"), [("train", "H100"), ("evaluate", platform.machine()), ("compress", platform.machine())]
)
def test_an_accelerator_is_named_by_whoever_computed_on_it(
    kind: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "H100")
    spec = Spec.model_validate({"kind": kind, "task": "image_classification", "dataset": "a"})
    assert environment(Run(spec, Plan.of(spec), Listed()))["device"] == named
