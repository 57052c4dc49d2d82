"""A name can be read as it is: what is blank, unseen or turns a line is refused, whoever is called so."""

import re
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.auth.schemas import KeyCreate
from app.datasets.schemas import DatasetCreate
from app.experiments.ballot_endpoints import RaterCreate
from app.experiments.schemas import ExperimentCreate, Treatment
from app.federation.schemas import PopulationCreate
from app.jobs.requests import CompressCreate, DetectCreate, EvaluateCreate, JobCreate
from app.openai.fine_tuning.requests import FineTuningCreate
from app.openai.uploads.schemas import UploadCreate
from app.schemas import Name, plain
from engine.faults import from_validation

HIDDEN = {
    "": "string_too_short",
    " ": "blank",
    "\u00a0\u3000": "blank",
    "a\tb": "control_character",
    "a\x1b[2Jb": "control_character",
    "a\x9bb": "control_character",
    "gpj.\u202etxt": "hidden_character",
    "\u2066a\u2069": "hidden_character",
    "a\u200bb": "hidden_character",
    "a\u200fb": "hidden_character",
    "soft\u00adhyphen": "hidden_character",
    "two\u2028lines": "hidden_character",
    "\ufeffa": "hidden_character",
    "\u3164": "hidden_character",
    "a\U000e0041": "hidden_character",
}
READABLE = ["a", "Ann O'Hara", "Καλημέρα", "日本語", "naïve", "עברית", "🙂", "❤\ufe0f", "a / b"]
NAME: TypeAdapter[str] = TypeAdapter(Name)


@pytest.mark.parametrize("text", HIDDEN)
def test_what_cannot_be_read_is_no_name(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NAME.validate_python(text)
    (fault,) = from_validation(caught.value, BaseModel)
    assert fault.code == HIDDEN[text]
    assert fault.detail
    assert "mend" not in fault.remedy
    assert not text or not re.fullmatch(NAME.json_schema()["pattern"], text)


@pytest.mark.parametrize("text", READABLE)
def test_names_of_every_script_are_taken(text: str) -> None:
    assert NAME.validate_python(text) == text == plain(text)
    assert re.fullmatch(NAME.json_schema()["pattern"], text)


def test_the_name_of_a_file_is_told_without_what_does_not_show() -> None:
    assert plain("gpj.\u202etxt\x1b ") == "gpj.txt"
    assert plain("\u3164 \u200b") == ""


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (KeyCreate, "name"),
        (DatasetCreate, "name"),
        (PopulationCreate, "name"),
        (ExperimentCreate, "name"),
        (Treatment, "name"),
        (RaterCreate, "name"),
        (JobCreate, "name"),
        (EvaluateCreate, "name"),
        (CompressCreate, "name"),
        (DetectCreate, "name"),
        (FineTuningCreate, "suffix"),
        (UploadCreate, "filename"),
    ],
)
def test_whatever_has_a_name_has_one_that_can_be_read(model: type[BaseModel], field: str) -> None:
    sent: dict[str, Any] = {field: "ann\u202e"}
    with pytest.raises(ValidationError) as caught:
        model.model_validate(sent)
    found = {fault.pointer: fault.code for fault in from_validation(caught.value, model)}
    assert found[f"/{field}"] == "hidden_character"
