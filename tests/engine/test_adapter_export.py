"""The export as adapter: PEFT puts it beside its base and has the trained model; what it cannot hold is refused."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from client.artifact import Package
from client.errors import BadPackage
from client.signature import ensure_key, public_key
from client.verify import verify
from engine.adapter_reader import AdaptedClassifier
from engine.errors import InvalidPlan
from engine.exporters.adapter import ABOUT, FILE
from engine.handover import KEY_VARIABLE
from engine.models import Base
from engine.plan import Plan
from engine.spec import Spec
from tests.engine.measured import in_this_process
from tests.engine.parents import receipt_of, run_job, text_parent
from tests.engine.test_causal_lm_delivery import bits_per_byte_of, prepared
from tests.engine.tiny import tiny_bert, tiny_texts
from tests.engine.tiny_lm import tiny_decoder, tiny_lm_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
Json = dict[str, Any]
LORA = {"number": 19, "rank": 4}
PEFT = {"format": "peft"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with a text classifier and a language model, each trained beside its base and shipped as adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYTWO_MODELS_DIR", str(folder / "models"))
        patch.setenv(KEY_VARIABLE, str(ensure_key(folder / "key.pem")))
        parent = text_parent(folder, [1, LORA], export=PEFT)
        _unpack(folder / "train")
        tiny_decoder(folder / "models" / "tiny")
        texts = [str(one) for one in tiny_lm_rows(120).payloads]
        body = {
            "task": "causal_lm",
            "model": "tiny",
            "dataset": str(prepared(folder, texts)),
            "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "max_length": 48},
            "instructions": [LORA],
            "export": PEFT,
        }
        run_job(body, folder / "language")
        _unpack(folder / "language")
        yield folder, parent


def _unpack(folder: Path) -> None:
    with zipfile.ZipFile(folder / "outputs" / "model.zip") as archive:
        archive.extractall(folder / "package")


def test_the_package_is_the_adapter_and_says_that_its_base_is_not_in_it(made: tuple[Path, Json]) -> None:
    for kind, name in (("train", "tiny-bert"), ("language", "tiny")):
        package, receipt = made[0] / kind / "package", receipt_of(made[0] / kind)
        names = {path.name for path in package.iterdir()}
        assert {FILE, ABOUT, "tokenizer.json", "config.json", "MODEL_CARD.md", "receipt.json"} <= names
        assert not {"model.onnx", "model.safetensors"} & names
        assert json.loads((package / ABOUT).read_text())["base_model_name_or_path"] == name
        size = receipt["size"]
        assert size["exported_bytes"] == (package / FILE).stat().st_size
        assert size["base_bytes"] == size["reference_bytes"] > size["exported_bytes"]
        assert any(name in told and "counted neither" in told for told in receipt["warnings"])
        card = (package / "MODEL_CARD.md").read_text()
        assert "library_name: peft" in card
        assert "PeftModel.from_pretrained(base" in card
        assert receipt["inputs"]["base_model"]["sha256"] in card
        assert abs(receipt["quality"]["loss"]["value"]) < 1e-4
        assert receipt["latency"]["runs"] >= 8


def test_a_stranger_has_the_trained_classifier_beside_the_base(made: tuple[Path, Json]) -> None:
    folder, _ = made
    package = folder / "train" / "package"
    base = AutoModelForSequenceClassification.from_pretrained(folder / "models" / "tiny-bert", num_labels=2)
    model, merged = PeftModel.from_pretrained(base, package).eval(), _merged(folder / "train")
    reader = AdaptedClassifier(package)
    texts, _ = tiny_texts(20, seed=3)
    for text in texts:
        ids = torch.tensor([reader.task.tokenizer.encode(text).ids])
        with torch.no_grad():
            said, expected = model(input_ids=ids).logits[0], merged(input_ids=ids).logits[0]
        torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(reader.answers([text])[0], expected.numpy(), rtol=1e-4, atol=1e-4)


def _merged(folder: Path) -> Any:
    with zipfile.ZipFile(folder / "outputs" / "checkpoint.zip") as archive:
        archive.extractall(folder / "checkpoint")
    return AutoModelForSequenceClassification.from_pretrained(folder / "checkpoint").eval()


def test_a_stranger_has_the_trained_language_model_beside_the_base(made: tuple[Path, Json]) -> None:
    folder, _ = made
    package, receipt = folder / "language" / "package", receipt_of(folder / "language")
    base = AutoModelForCausalLM.from_pretrained(folder / "models" / "tiny")
    model, tokenizer = PeftModel.from_pretrained(base, package).eval(), AutoTokenizer.from_pretrained(package)
    texts = [str(one) for one in tiny_lm_rows(40).payloads]
    with zipfile.ZipFile(folder / "language" / "outputs" / "checkpoint.zip") as archive:
        archive.extractall(folder / "language" / "checkpoint")
    merged = AutoModelForCausalLM.from_pretrained(folder / "language" / "checkpoint")
    found = bits_per_byte_of(model, tokenizer, texts)
    assert found == pytest.approx(bits_per_byte_of(merged, tokenizer, texts), rel=1e-4)
    untouched = AutoModelForCausalLM.from_pretrained(folder / "models" / "tiny")
    assert found < 0.9 * bits_per_byte_of(untouched, tokenizer, texts)
    assert receipt["quality"]["base"]["gain"]["ci95"][0] > 0
    assert len(receipt["quality"]["golden"]) == 5


def test_a_raw_row_goes_through_the_steps_of_the_package(made: tuple[Path, Json]) -> None:
    reader = AdaptedClassifier(made[0] / "train" / "package")
    raw, clean = reader.answers(["word1\u200b   prize", "word1 prize"])
    np.testing.assert_allclose(raw, clean, atol=1e-6)


def test_beside_another_base_it_is_another_model(made: tuple[Path, Json], tmp_path: Path) -> None:
    package = made[0] / "train" / "package"
    right = AdaptedClassifier(package).answers(["word1 prize"])
    other = tiny_bert(tmp_path / "other")
    with pytest.MonkeyPatch.context() as patch:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "other")
        with torch.no_grad():
            for weight in model.bert.embeddings.word_embeddings.parameters():
                weight.copy_(weight.roll(1, dims=0))
        model.save_pretrained(other.folder)
        patch.setattr("engine.adapter_reader.base_of", lambda folder: Base("other", other.folder))
        assert np.abs(AdaptedClassifier(package).answers(["word1 prize"]) - right).max() > 0.01


def test_the_client_says_what_to_do_and_still_verifies(made: tuple[Path, Json]) -> None:
    for kind in ("train", "language"):
        assert FILE in verify(made[0] / kind / "package", public_key(made[0] / "key.pem")).files
        with pytest.raises(BadPackage, match="does not run without its base") as refused:
            Package(made[0] / kind / "package")
        assert "MODEL_CARD.md" in refused.value.remedy


def test_its_evaluation_gives_the_same_score(made: tuple[Path, Json]) -> None:
    folder, parent = made
    with in_this_process():
        run_job({"kind": "evaluate", "model": "job_parent", "parent": parent}, folder / "own")
    again, trained = receipt_of(folder / "own"), receipt_of(folder / "train")
    assert again["quality"]["exported"] == trained["quality"]["exported"]
    assert again["size"]["exported_bytes"] == trained["size"]["exported_bytes"]


def faults(chosen: list[Any], task: str = "text_classification", **fields: Any) -> str:
    body = {"task": task, "dataset": "none", "instructions": chosen, "export": PEFT, **fields}
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        Spec.model_validate(body)
    return str(refused.value)


@pytest.mark.parametrize("task", ["text_classification", "causal_lm"])
def test_without_an_adapter_there_is_nothing_to_ship(task: str) -> None:
    assert "there is none" in faults([], task)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ([LORA, 47], "post_training_quantization changes the merged weights"),
        ([LORA, 45], "structured_pruning changes the merged weights"),
        ([LORA, 33], "attention_detection asks the file as its users run it"),
        ([LORA, 36], "robustness_audit asks the file as its users run it"),
    ],
)
def test_what_an_adapter_cannot_hold_is_refused(chosen: list[Any], says: str) -> None:
    assert says in faults(chosen)


@pytest.mark.parametrize("field", ["keep_adapter", "train_head"])
def test_an_adapter_that_would_lack_a_part_is_refused(field: str) -> None:
    body = {"task": "text_classification", "dataset": "none", "instructions": [{**LORA, field: False}], "export": PEFT}
    with pytest.raises(InvalidPlan) as refused:
        Plan.of(Spec.model_validate(body), {"pretrained"})
    assert [fault.pointer for fault in refused.value.faults] == [f"/instructions/0/{field}"]


def test_pictures_do_not_ship_as_adapter() -> None:
    assert "does not ship as peft" in faults([], "image_classification")
