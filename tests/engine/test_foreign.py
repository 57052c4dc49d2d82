"""A trained classifier from a folder of the models directory: what is taken for one, and its compression."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from client.artifact import Package
from engine.errors import Fault, InvalidPlan
from engine.events import Warned
from engine.foreign import Foreign, look
from tests.engine.parents import receipt_of, run_job, unpacked
from tests.engine.tiny import LABELS, tiny_bert, tiny_text_rows, write_rows

pytestmark = pytest.mark.usefixtures("measured_here")

Json = dict[str, Any]


def foreign(folder: Path, **changed: Any) -> Path:
    """A classifier whose classes are numbered the other way round than the rows'."""
    tiny_bert(folder)
    told = {"id2label": {"0": LABELS[1], "1": LABELS[0]}, "label2id": {LABELS[1]: 0, LABELS[0]: 1}}
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **told, **changed}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose `models` holds the classifier, and rows beside it."""
    made = tmp_path_factory.mktemp("foreign")
    foreign(made / "models" / "reviews")
    write_rows(tiny_text_rows(200), made / "ds_rows.parquet", "text_classification")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYTWO_MODELS_DIR", str(made / "models"))
        yield made


def compressed(folder: Path, name: str, instructions: list[Any], model: str = "reviews") -> list[Any]:
    rows = str(folder / "ds_rows.parquet")
    parent = {"spec": {"task": "text_classification", "model": model, "dataset": rows, "training": {"max_length": 32}}}
    body = {"kind": "compress", "model": model, "dataset": rows, "parent": parent, "instructions": instructions}
    return run_job(body, folder / name)


def answered(folder: Path, texts: list[str]) -> np.ndarray:
    """Logits by transformers alone, one text at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with torch.no_grad():
        found = [model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits[0].numpy() for text in texts]
    return np.stack(found)


def test_its_file_gives_its_answers_by_the_names_of_its_classes(folder: Path) -> None:
    events = compressed(folder, "narrow", [{"number": 47, "calibration_rows": 16}])
    assert "unknown_training_rows" in {event.code for event in events if isinstance(event, Warned)}
    receipt = receipt_of(folder / "narrow")
    assert receipt["inputs"]["base_model"]["name"] == "reviews"
    assert receipt["inputs"]["base_model"]["sha256"]
    assert any("reviews was trained on is not known" in one for one in receipt["warnings"])
    (listed,) = receipt["inputs"]["datasets"]
    assert sum(listed["splits"].values()) == 200
    package = Package(unpacked(folder / "narrow" / "outputs" / "model.zip", folder / "narrow" / "package"))
    assert json.loads((package.folder / "labels.json").read_text()) == [LABELS[1], LABELS[0]]
    rows = tiny_text_rows(200)
    texts = [str(one) for one in rows.payloads]
    theirs, ours = answered(folder / "models" / "reviews", texts), package.answers(texts)
    assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).mean() > 0.9
    # The reference is scored by names: class 0 of the folder is the rows' class 1.
    test = [i for i, one in enumerate(rows.ids.tolist()) if int(one[:8], 16) / 2**32 >= 0.9]
    right = (1 - theirs.argmax(axis=1))[test] == rows.labels[test]
    assert receipt["quality"]["reference"]["value"] == pytest.approx(float(right.mean()), abs=1e-6)
    assert receipt["quality"]["reference"]["n"] == len(test)


def test_it_is_pruned_recovered_and_trimmed_like_any_other(folder: Path) -> None:
    plan = [{"number": 45, "ratio": 0.25, "recovery_steps": 6}, {"number": 48, "max_unknown": 0.2}]
    compressed(folder, "pruned", plan)
    receipt = receipt_of(folder / "pruned")
    assert [one["number"] for one in receipt["plan"]] == [45, 48]
    assert receipt["size"]["parameters"]["exported"] < receipt["size"]["parameters"]["reference"]


def test_it_is_told_by_name_and_classes(folder: Path) -> None:
    assert look("reviews", folder / "models") == Foreign("reviews", "text_classification", (LABELS[1], LABELS[0]))


def headless(folder: Path) -> None:
    BertModel(BertConfig.from_pretrained(folder)).save_pretrained(folder)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def headless_by_name_alone(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: one for name, one in load_file(path).items() if "classifier" not in name}, path)


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def broken(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def torn(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"torn")


@pytest.mark.parametrize(
    ("spoil", "changed", "code"),
    [
        (headless, {}, "no_head"),
        (headless_by_name_alone, {}, "no_head"),
        (without_weights, {}, "unsafe_model"),
        (without_tokenizer, {}, "no_tokenizer"),
        (broken, {}, "no_model"),
        (torn, {}, "no_model"),
        (None, {"auto_map": {"AutoModel": "code.py"}}, "unsafe_model"),
        (None, {"id2label": None, "label2id": None}, "no_head"),
        (None, {"id2label": {"0": "one", "1": "one"}, "label2id": {"one": 0}}, "no_head"),
        (None, {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}, "no_head"),
        (None, {"problem_type": "multi_label_classification"}, "wrong_task"),
        (None, {"architectures": None}, "no_head"),
        (None, {"architectures": ["UnknownForSequenceClassification"], "model_type": "unknown"}, "no_model"),
    ],
)
def test_what_is_no_trained_classifier_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None] | None, changed: Json, code: str
) -> None:
    foreign(tmp_path / "spoiled", **changed)
    if spoil is not None:
        spoil(tmp_path / "spoiled")
    found = look("spoiled", tmp_path)
    assert isinstance(found, Fault)
    assert (found.pointer, found.code) == ("/model", code)
    assert found.remedy


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nosuch", "unknown_model"),
        ("../models/reviews", "unknown_model"),
        ("", "unknown_model"),
        ("\u00e4" * 200, "unknown_model"),
        ("minilm-l6", "no_head"),
    ],
)
def test_names_that_are_no_folder_of_a_model(folder: Path, name: str, code: str) -> None:
    for local in (folder / "models", None):
        found = look(name, local)
        assert isinstance(found, Fault)
        assert found.code == code


def test_a_folder_that_is_gone_at_the_run_is_told_and_no_traceback(folder: Path) -> None:
    with pytest.raises(InvalidPlan) as caught:
        compressed(folder, "gone", [{"number": 47, "calibration_rows": 16}], model="nosuch")
    assert [fault.code for fault in caught.value.faults] == ["unknown_model"]
