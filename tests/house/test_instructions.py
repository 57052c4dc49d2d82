"""Every instruction has the same shape: its file, its docstring, its parameters, its proof. Knows none by name."""

import inspect
from pathlib import Path

import pytest

from engine.catalogue import CATALOGUE
from engine.instruction import TIERS, Instruction

KINDS = [pytest.param(kind, id=f"{number:02}") for number, kind in CATALOGUE.items()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_named_after_number_name_and_band(kind: type[Instruction], root: Path) -> None:
    name = kind.model_fields["name"].default
    file = Path(inspect.getfile(kind)).relative_to(root)
    assert file == Path("engine/instructions", kind.band, f"i{kind.number:02}_{name}.py")
    assert kind.band in TIERS
    assert name.replace("_", "") == kind.__name__.lower()


@pytest.mark.parametrize("kind", KINDS)
def test_the_docstring_says_what_how_soundly_and_to_which_effect(kind: type[Instruction]) -> None:
    paragraphs = (inspect.getdoc(kind) or "").split("\n\n")
    assert paragraphs[0].endswith(".")
    assert "\n" not in paragraphs[0], "the first sentence stands on one line"
    marks = [paragraph.split(":")[0] for paragraph in paragraphs]
    assert [mark for mark in marks if mark in {"Sound", "Refuses", "Effect"}] == ["Sound", "Refuses", "Effect"]
    assert marks[-3:] == ["Sound", "Refuses", "Effect"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_says_what_it_means_and_has_a_default(kind: type[Instruction]) -> None:
    for name, field in kind.model_fields.items():
        assert name == "name" or field.description, f"{name} has no description"
        assert not field.is_required(), f"{name} has no default"


@pytest.mark.parametrize("kind", KINDS)
def test_it_names_its_source_its_metric_and_its_tasks(kind: type[Instruction]) -> None:
    assert len(kind.title) > 5
    assert len(kind.source) > 10
    assert kind.metric
    assert kind.tasks


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_a_proof(kind: type[Instruction], root: Path) -> None:
    name = kind.model_fields["name"].default
    proof = root / "tests/engine/instructions" / f"test_i{kind.number:02}_{name}.py"
    assert proof.is_file()
    assert "assert" in proof.read_text(encoding="utf-8")


def test_numbers_and_names_are_taken_once() -> None:
    assert list(CATALOGUE) == sorted(kind.number for kind in CATALOGUE.values())
    assert len({kind.model_fields["name"].default for kind in CATALOGUE.values()}) == len(CATALOGUE)
