"""The kinds of job as fields: which class reads a body, what it makes of its parent, and what does not go together."""

from typing import Any

import pytest

from engine.errors import InvalidPlan
from engine.instructions.gradients.i19_low_rank_adaptation import LowRankAdaptation
from engine.kinds import SPECS, Compress, CompressFile, Evaluate, derived_faults, spec_class
from engine.plan import Plan
from engine.runners import RUNNERS
from engine.spec import Spec, TrainFile

SEEDED = {"training": {"seed": 3}}
TRAINED = Spec.model_validate(
    {
        "task": "text_classification",
        "dataset": "ds_1",
        "instructions": [1],
        "training": {"seed": 3},
        "metric": "macro_f1",
    }
)
DYNAMIC = {"number": 47, "scheme": "dynamic_int8"}


PRIVATE = Spec.model_validate({**TRAINED.model_dump(), "instructions": [37]})


def codes(body: Compress | Evaluate, trained: Spec = TRAINED) -> dict[str, str]:
    facts = frozenset[str]().union(*(one.provides for one in trained.instructions))
    found = derived_faults(body, trained, facts)
    assert all(fault.detail and fault.remedy for fault in found)
    return {fault.pointer: fault.code for fault in found}


def compress(**fields: Any) -> Compress:
    return Compress.model_validate({"kind": "compress", "model": "job_1", "instructions": [DYNAMIC], **fields})


def test_a_body_is_read_by_the_class_of_its_kind() -> None:
    assert spec_class({}) is spec_class({"kind": "train"}) is TrainFile
    assert spec_class({"kind": "compress"}) is CompressFile
    strange: list[Any] = [{"kind": "bake"}, {"kind": ["compress"]}, [], "text", None]
    for body in strange:
        assert issubclass(spec_class(body), Spec), "which then says what is wrong"
    assert set(SPECS) == set(RUNNERS)


def test_a_run_reads_the_jobs_own_fields_and_else_the_parents() -> None:
    run = compress(limits={"min_metric": 0.5}).run_spec("compress", TRAINED)
    assert (run.kind, run.task, run.metric, run.training.seed) == ("compress", "text_classification", "macro_f1", 3)
    assert [one.number for one in run.instructions] == [47]
    assert run.limits.min_metric == 0.5
    own = compress(metric="accuracy", training={"seed": 9}).run_spec("compress", TRAINED)
    assert (own.metric, own.training.seed) == ("accuracy", 9)
    with pytest.raises(InvalidPlan) as caught:
        compress(metric="recall_at_1").run_spec("compress", TRAINED)
    assert [fault.pointer for fault in caught.value.faults] == ["/metric"]


def test_the_rate_of_adapters_is_none_for_the_weights_that_recover() -> None:
    given = {"learning_rate": 2e-3, "seed": 3}
    adapted = TRAINED.model_copy(
        update={
            "instructions": (LowRankAdaptation(),),
            "training": TRAINED.training.model_copy(update={"learning_rate": 2e-3}),
        }
    )
    assert compress().run_spec("compress", adapted).training.learning_rate == pytest.approx(2e-4)
    assert compress(training=given).run_spec("compress", adapted).training.learning_rate == 2e-3
    assert compress().run_spec("compress", TRAINED).training.learning_rate is None


def test_a_resolved_job_is_its_own_request_again() -> None:
    body = compress(dataset="ds_2")
    filled = body.resolved(body.run_spec("compress", TRAINED), {"job": "job_1"})
    assert filled.pop("parent") == {"job": "job_1"}
    again = Compress.model_validate(filled)
    assert again.resolved(again.run_spec("compress", TRAINED), {}) == {**filled, "parent": {}}


def test_an_instruction_acts_in_some_kinds_alone() -> None:
    body = Evaluate.model_validate({"kind": "evaluate", "model": "job_1", "instructions": [47]})
    with pytest.raises(InvalidPlan) as caught:
        Plan.of(body.run_spec("evaluate", TRAINED))
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [("/instructions/0", "wrong_kind")]
    assert Plan.of(compress().run_spec("compress", TRAINED)).instructions


def test_a_private_model_learns_from_no_further_row_and_shows_none() -> None:
    taught = compress(instructions=[45], dataset="ds_1")
    assert codes(taught) == {}
    assert codes(taught, PRIVATE) == {"/instructions/0": "excluded"}
    assert codes(compress(dataset="ds_1"), PRIVATE) == {}
    detector = {"number": 33, "signals": ["softmax"]}
    assert codes(compress(instructions=[DYNAMIC, detector], dataset="ds_1")) == {}
    assert codes(compress(instructions=[DYNAMIC, detector], dataset="ds_1"), PRIVATE) == {"/instructions/1": "excluded"}
    shown = Evaluate.model_validate({"kind": "evaluate", "model": "job_1", "include_inputs": True})
    assert codes(compress(dataset="ds_2", include_inputs=True), PRIVATE) == {"/include_inputs": "excluded"}
    assert codes(shown) == {}
    assert codes(shown, PRIVATE) == {"/include_inputs": "excluded"}
    apart = Spec.model_validate({**PRIVATE.model_dump(), "dataset": {"train": "ds_1", "test": "ds_2"}})
    assert codes(shown, apart) == {}
    elsewhere = shown.model_copy(update={"dataset": "ds_3"})
    assert codes(elsewhere, PRIVATE) == {}


def test_what_learns_needs_rows() -> None:
    assert codes(compress(instructions=[45])) == {"/instructions/0": "needs_rows"}
    assert codes(compress(instructions=[48])) == {"/instructions/0": "needs_rows"}
    assert codes(compress(instructions=[{"number": 45, "importance": "l1", "recovery_steps": 0}])) == {}
    assert codes(compress(instructions=[])) == {"/instructions": "nothing_to_do"}
