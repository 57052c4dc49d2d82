"""The form of a job: it makes the body that the API takes, its commands ask for the same, faults find their places."""

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from app.dashboard import article, builder, equivalents
from app.dashboard.forms import Field, Given, fields_of, number, text_of, values_of
from client import cli
from client.spec import spec_of
from engine.catalogue import CATALOGUE, named
from engine.errors import Fault
from engine.spec import Spec

Body = dict[str, Any]

# The form's fields.


def test_the_form_has_every_parameter_of_every_instruction() -> None:
    form = builder.form_of("train")
    assert set(form.choices) == set(CATALOGUE)
    for kind in CATALOGUE.values():
        keys = {field.key for field in form.choices[kind.number].fields}
        assert keys == set(kind.model_fields) - {"name"}


def test_an_untouched_form_asks_for_no_more_than_was_chosen() -> None:
    """Each control as it is shown at first gives the default back, which the body leaves out."""
    for kind in builder.KINDS:
        form = builder.form_of(kind)
        fields = [*form.others, *(one for section in form.sections.values() for one in section)]
        fields += [one for choice in form.choices.values() for one in choice.fields]
        shown = Given(pair for one in fields for pair in _as_posted(one))
        assert values_of(fields, shown) == {}


def _as_posted(field: Field) -> list[tuple[str, str]]:
    empty = Given()
    if field.kind == "several":
        return [(field.name, one) for one in field.ticked(empty)]
    return [(field.name, field.shown(empty))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        ("12 000", 12_000),
        ("three", "three"),
        ("nan", "nan"),
        ("1e999", "1e999"),
    ],
)
def test_what_is_no_number_stays_text_for_the_api_to_refuse(text: str, value: Any) -> None:
    assert number(text) == value
    assert type(number(text)) is type(value)


def test_every_kind_of_field_gives_its_json_value_back() -> None:
    schema = {
        "properties": {
            "few": {"type": "array", "items": {"type": "string"}, "default": ["a"]},
            "some": {"anyOf": [{"type": "array", "items": {"enum": ["x", "y"]}}, {"type": "null"}], "default": None},
            "on": {"type": "boolean", "default": True},
            "width": {"type": "integer", "enum": [1, 8], "default": 8},
            "of": {"anyOf": [{"const": "label"}, {"type": "null"}], "default": "label"},
            "rate": {
                "type": "number",
                "minimum": 0,
                "exclusiveMaximum": 1,
                "default": 0.5,
                "description": "how `fast`",
            },
            "only": {"const": "one", "default": "one"},
        }
    }
    fields = fields_of(schema, "9.")
    assert [one.kind for one in fields] == ["list", "several", "switch", "choice", "choice", "real"]
    assert fields[-1].hint == "How fast. From 0, below 1, default 0.5."
    posted = [
        ("9.few", " b \n\nc"),
        ("9.some", "y"),
        ("9.on", "false"),
        ("9.width", "1"),
        ("9.of", ""),
        ("9.rate", ".1"),
    ]
    values = values_of(fields, Given(posted))
    assert values == {"few": ["b", "c"], "some": ["y"], "on": False, "width": 1, "of": None, "rate": 0.1}
    assert values_of(fields, Given([("9.few", ""), ("9.on", "false"), ("9.on", "true")])) == {"few": []}
    assert [text_of(one) for one in (None, True, 2.0, 1e-5, ["a", 1])] == ["", "true", "2", "1e-05", "a\n1"]


def test_the_52_have_the_numbers_and_bands_of_the_catalogue() -> None:
    assert [one.number for one in article.ALL] == list(range(1, 53))
    known = {one.number: (one.name, one.band, one.tier) for one in article.ALL}
    for kind in CATALOGUE.values():
        assert known[kind.number] == (kind.model_fields["name"].default, kind.band, kind.tier())


def test_a_number_that_an_instruction_owns_is_not_written_twice() -> None:
    spec = Spec.model_validate(
        {
            "task": "causal_lm",
            "dataset": {"train": "ds_1", "test": "ds_2"},
            "instructions": [{"name": "sequence_packing", "length": 64}],
        }
    )
    job = spec.resolved(pretrained=True)
    assert job["training"]["max_length"] == 64
    filled = dict(builder.filled_by(job))
    assert "training.max_length" not in filled
    assert (filled["12.length"], filled["dataset"], filled["dataset.test"]) == ("64", "ds_1", "ds_2")


def test_a_compression_takes_the_numbers_of_its_model_unless_it_has_its_own() -> None:
    trained = Spec.model_validate({"task": "text_classification", "dataset": "ds_1", "training": {"epochs": 5}})
    numbers = trained.resolved(pretrained=True)["training"]
    job: Body = {"kind": "compress", "model": "job_1", "instructions": [{"name": "post_training_quantization"}]}
    job["parent"] = {"job": "job_1", "spec": trained.resolved(pretrained=True)}
    form = builder.form_of("compress")
    for training, asked in ((numbers, None), (numbers | {"epochs": 1}, 1)):
        given = Given(builder.filled_by(job | {"training": training}))
        assert builder.body_of(form, given, {}).get("training", {}).get("epochs") == asked


# Faults and their places.


@pytest.mark.parametrize(
    ("pointer", "control"),
    [
        ("/instructions/1/ratio", "45.ratio"),
        ("/instructions/1/unheard", "instructions.45"),
        ("/instructions/1", "instructions.45"),
        ("/instructions/0/keep/2", "instructions.1"),
        ("/instructions/7", ""),
        ("/training/epochs", "training.epochs"),
        ("/dataset/train", "dataset"),
        ("/dataset/test", "dataset.test"),
        ("/metadata/a~1b", "metadata"),
        ("/inputs", ""),
        ("", ""),
    ],
)
def test_a_pointer_leads_to_its_control(pointer: str, control: str) -> None:
    given = Given([("instructions", "structured_pruning"), ("instructions", "text_normalization")])
    form = builder.form_of("train")
    assert list(builder.beside(form, given, [Fault(pointer, "code", "detail", "remedy")])) == [control or ""]


# The same from a shell.

BODIES: list[Body] = [
    {"kind": "train", "task": "causal_lm", "dataset": "ds_01"},
    {"kind": "train", "task": "causal_lm", "dataset": {"train": "ds_01", "test": "ds_02"}, "name": '--it\'s "mine"'},
    {
        "kind": "train",
        "task": "text_classification",
        "dataset": "ds_01",
        "model": "minilm-l6",
        "instructions": ["text_normalization", {"name": "structured_pruning", "ratio": 0.4}],
        "training": {"epochs": 2, "keep": "best"},
        "limits": {"max_metric_loss": 0.01},
        "answers": True,
        "metadata": {"a.b": "true", "c": "it's $HOME"},
    },
    {
        "kind": "compress",
        "model": "job_01",
        "instructions": ["post_training_quantization"],
        "export": {"format": "onnx"},
    },
    {"kind": "detect", "model": "job_01", "inputs": {"texts": ["it's", "null"]}, "control": "fdr"},
]


def words_of(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", " "))


def _plainly(body: Body) -> Body:
    chosen = [{"name": one} if isinstance(one, str) else one for one in body.get("instructions", ())]
    return body | {"instructions": chosen}


@pytest.mark.parametrize("body", BODIES)
def test_the_commands_ask_for_the_very_same_job(body: Body, parsed: Callable[[list[str]], Body]) -> None:
    words = words_of(equivalents.curl("http://here:8052", body))
    assert words[:4] == ["curl", "-X", "POST", "http://here:8052/v1/jobs"]
    assert json.loads(words[words.index("-d") + 1]) == body
    assert "Authorization: Bearer $FIFTYTWO_KEY" in words
    command = words_of(equivalents.submit("http://here:8052", body))
    assert command[:4] == ["fiftytwo", "submit", "--server", "http://here:8052"]
    assert parsed(command[1:]) == _plainly(body)


@pytest.fixture
def parsed() -> Callable[[list[str]], Body]:
    """What `fiftytwo submit` makes of its words, instructions by name."""

    def parse(words: list[str]) -> Body:
        spec = dict(spec_of(cli.parser().parse_args(words)))
        names = {one: named(one) for one in spec.get("instructions", ()) if isinstance(one, int)}
        chosen = [
            kind.model_fields["name"].default if isinstance(one, int) and (kind := names[one]) is not None else one
            for one in spec.get("instructions", ())
        ]
        return _plainly(spec | {"instructions": chosen})

    return parse
