"""Bad specs: every fault at once, where it is, and what to do."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from engine.errors import Fault
from engine.faults import from_validation
from engine.spec import Spec, Training

SOUND: dict[str, Any] = {"task": "text_classification", "dataset": "ds_1"}


def faults(**changes: Any) -> list[Fault]:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate({**SOUND, **changes})
    return from_validation(caught.value, Spec)


@pytest.mark.parametrize(
    ("changes", "pointer", "code", "remedy"),
    [
        ({"tusk": "x"}, "/tusk", "unknown_field", "did you mean task?"),
        ({"length_bucketing": {}}, "/length_bucketing", "unknown_field", "leave it out"),
        ({"epochs": 3}, "/epochs", "unknown_field", "did you mean /training/epochs?"),
        ({"epoch": 3}, "/epoch", "unknown_field", "did you mean /training/epochs?"),
        ({"max_size_ratio": 0.5}, "/max_size_ratio", "unknown_field", "did you mean /limits/max_size_ratio?"),
        ({"format": "onnx"}, "/format", "unknown_field", "did you mean /export/format?"),
        ({"training": {"metric": "macro_f1"}}, "/training/metric", "unknown_field", "did you mean /metric?"),
        ({"limits": {"seed": 1}}, "/limits/seed", "unknown_field", "did you mean /training/seed?"),
        ({"task": "regression"}, "/task", "literal_error", "text_classification"),
        ({"kind": "trian"}, "/kind", "literal_error", "train"),
        ({"dataset": {"train": "a", "tst": "b", "test": "c"}}, "/dataset/tst", "unknown_field", "did you mean test?"),
        ({"dataset": 5}, "/dataset", "string_type", "send a string"),
        ({"dataset": ""}, "/dataset", "string_too_short", "not empty"),
        ({"instructions": "1,2"}, "/instructions", "tuple_type", "send a list"),
        (
            {"instructions": ["lenght_bucketing"]},
            "/instructions/0",
            "unknown_instruction",
            "did you mean length_bucketing?",
        ),
        ({"instructions": [1, 99]}, "/instructions/1", "unknown_instruction", "known are 1"),
        ({"instructions": [True]}, "/instructions/0", "unknown_instruction", "known are"),
        ({"instructions": [{"ratio": 0.2}]}, "/instructions/0", "unknown_instruction", "add its number or its name"),
        ({"training": {"seed": 2**60}}, "/training/seed", "less_than", "below 9007199254740992"),
        (
            {"instructions": [{"number": 1, "name": "length_bucketing"}]},
            "/instructions/0",
            "number_and_name_differ",
            "once",
        ),
        (
            {"instructions": [{"number": 45, "ratoi": 0.2}]},
            "/instructions/0/ratoi",
            "unknown_field",
            "did you mean ratio?",
        ),
        (
            {"instructions": [{"number": 20, "warmup_steps": 10}]},
            "/instructions/0/warmup_steps",
            "unknown_field",
            "did you mean warmup?",
        ),
        ({"instructions": [{"number": 45, "ratio": 2}]}, "/instructions/0/ratio", "less_than_equal", "at most 0.9"),
        ({"instructions": [{"number": 45, "ratio": "0.2"}]}, "/instructions/0/ratio", "float_type", "send a number"),
        ({"training": {"epochs": 0}}, "/training/epochs", "greater_than_equal", "of at least 1"),
        ({"training": {"epochs": True}}, "/training/epochs", "int_type", "whole number"),
        ({"training": {"epochs": "3"}}, "/training/epochs", "int_type", "whole number"),
        ({"training": {"batch_size": 1.5}}, "/training/batch_size", "int_type", "whole number"),
        ({"training": {"learning_rate": float("nan")}}, "/training/learning_rate", "finite_number", "finite"),
        ({"training": {"learning_rate": 11}}, "/training/learning_rate", "less_than_equal", "at most 10"),
        ({"training": {"lerning_rate": 1}}, "/training/lerning_rate", "unknown_field", "did you mean learning_rate?"),
        ({"training": []}, "/training", "model_type", "JSON object"),
        ({"limits": {"max_metric_loss": 1.5}}, "/limits/max_metric_loss", "less_than_equal", "at most 1"),
        ({"export": {"format": "pickle"}}, "/export/format", "literal_error", "onnx"),
        ({"include_inputs": "yes"}, "/include_inputs", "bool_type", "true or false"),
    ],
)
def test_each_fault_says_where_what_and_how(changes: dict[str, Any], pointer: str, code: str, remedy: str) -> None:
    (fault,) = faults(**changes)
    assert (fault.pointer, fault.code) == (pointer, code)
    assert remedy in fault.remedy


def test_all_faults_are_told_at_once() -> None:
    found = faults(model=7, instructions=[1, "x"], training={"epochs": 0, "batch_size": 0}, metric="f1", more=1)
    assert [fault.pointer for fault in found] == [
        "/model",
        "/instructions/1",
        "/metric",
        "/training/epochs",
        "/training/batch_size",
        "/more",
    ]


def test_a_key_is_escaped_as_json_pointers_are() -> None:
    (fault,) = faults(**{"a/b~c": 1})
    assert fault.pointer == "/a~1b~0c"


def test_a_body_that_is_no_object_is_one_fault_at_the_root() -> None:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate([])
    assert [(fault.pointer, fault.remedy) for fault in from_validation(caught.value, Spec)] == [
        ("", "send a JSON object")
    ]


def test_a_choice_is_a_number_a_name_or_an_object() -> None:
    spec = Spec.model_validate(
        {
            **SOUND,
            "instructions": [1, "length_bucketing", {"number": 20, "warmup": 0.1}, {"name": "gradient_accumulation"}],
        }
    )
    assert [one.number for one in spec.instructions] == [1, 11, 20, 24]
    assert Spec.model_validate(spec.model_dump(mode="json")) == spec


def test_defaults_are_filled_in() -> None:
    filled = Spec.model_validate(SOUND).resolved(pretrained=True)
    assert filled["model"] == "minilm-l6"
    assert filled["training"]["learning_rate"] == 1e-4
    assert Training().rate(pretrained=False) == 1e-3


class Part(BaseModel):
    """A section that may be left out."""

    model_config = ConfigDict(extra="forbid")

    items: int = 1


class Other(BaseModel):
    """What may stand in its place."""

    weight: float


class Body(BaseModel):
    """Sections in every place that a section can have."""

    maybe: Part | None = None
    several: tuple[Part, ...] = ()
    named: dict[str, Part] = {}
    either: Part | Other | None = None
    tagged: Annotated[
        Annotated[str, Tag("plain")] | Annotated[Part, Tag("section")],
        Discriminator(lambda given: "plain" if isinstance(given, str) else "section"),
    ] = ""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1, 2), min_length=2, max_length=3)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"maybe": {"itms": 3}}, [("/maybe/itms", "did you mean items?")]),
        ({"maybe": {"x": 3}}, [("/maybe/x", "leave it out; known are items")]),
        ({"several": [{}, {"itms": 3}]}, [("/several/1/itms", "did you mean items?")]),
        ({"named": {"a": {"itms": 3}}}, [("/named/a/itms", "did you mean items?")]),
        ({"tagged": {"itms": 3}}, [("/tagged/itms", "did you mean items?")]),
        (
            {"either": {"weight": "much", "items": 1}},
            [("/either/weight", "leave it out; known are items"), ("/either/weight", "send a number")],
        ),
        ({"seeds": [1, -2]}, [("/seeds/1", "send a number of at least 0")]),
        ({"seeds": [-1]}, [("/seeds/0", "send a number of at least 0"), ("/seeds", "send at least 2 items")]),
        ({"seeds": [1, 2, 3, 4]}, [("/seeds", "send at most 3 items")]),
    ],
)
def test_a_section_is_known_wherever_it_stands_and_a_list_has_the_length_that_was_sent(
    body: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate(body)
    assert [(fault.pointer, fault.remedy) for fault in from_validation(caught.value, Body)] == told
