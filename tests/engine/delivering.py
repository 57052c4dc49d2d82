"""Whole deliveries but for the file itself, which takes seconds to write: its answers are those of the model."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine import deliver as delivery
from engine.data import Source
from engine.deliver import deliver, format_of
from engine.exporters import FORMATS
from engine.inference import eager_answers
from engine.interrupt import Interrupt
from engine.models import Base
from engine.ports import Answers, Payload, content_of
from engine.run import Run
from engine.twin import untreated_answers
from tests.engine.documented import undocumented

OPENED_BY = frozenset({33, 34, 36})  # who reads the file that is missing here; their own tests write it
_ROUNDS = 8


@dataclass
class _Model:
    """The model in the place of its file."""

    run: Run
    folder: Path

    def answers(self, inputs: Sequence[Payload], batch_size: int = 1) -> Answers:
        """(n, k)."""
        return eager_answers(self.run.task, self.run.model, self.run.task.encode(list(inputs)))


def _export(run: Run, package: Path, before: Sequence[Mapping[str, Any]]) -> None:
    (package / FORMATS[format_of(run)].file).write_bytes(b"no weights")
    steps = [step for one in run.plan.instructions if (step := one.preprocess(run)) is not None]
    run.task.describe(package, run.model, [*before, *steps])


def _measure(run: Run, _: Any, package: Path, __: Any, expected: Answers) -> tuple[Answers, Mapping[str, Any]]:
    for one in run.plan.on("audit"):
        if one.number not in OPENED_BY:
            one.audit(run, _Model(run, package), run.model)
    seconds = {name: [1e-3] * _ROUNDS for name in ("reference", "exported")}
    sha256 = [hashlib.sha256(content_of(one)).hexdigest() for one in run.data.test.payloads]
    return expected, {"seconds": seconds, "golden": [], "sha256": sha256}


@contextmanager
def without_a_file() -> Iterator[None]:
    """Within, no file is written and none is measured; all else of a delivery is as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_export", _export)
        patch.setattr(delivery, "_measure", _measure)
        yield


def assert_delivered(run: Run, folder: Path) -> dict[str, Any]:
    """A trained run is handed over whole, beside an untreated twin where its rows are nobody's secret; its receipt."""
    folder.mkdir(parents=True, exist_ok=True)
    twin = None
    if "differential_privacy" not in run.plan.facts:
        twin = untreated_answers(run, folder, "", Interrupt())
    rows = sum(run.data.dealt.values())
    source = Source(folder, "ds_1", "0" * 64, rows, run.spec.task, run.task.labels, ("id",), {})
    with without_a_file():
        receipt = deliver(run, folder, [source], Base(run.spec.base_model, None), "job_1", twin)
    assert undocumented(receipt) == []
    assert {path.name for path in (folder / "outputs").iterdir()} >= {
        "model.zip",
        "checkpoint.zip",
        "receipt.json",
        "report.html",
    }
    return receipt
