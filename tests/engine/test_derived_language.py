"""Language models evaluated and compressed: the figures of safetensors and gguf files, and what a stranger loads."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.archive import SHAPES
from engine.errors import InvalidData, InvalidPlan, LimitMissed
from engine.events import FileWritten
from engine.exporters import gguf
from engine.language_reader import LanguageReader
from engine.ports import text_of
from tests.engine.parents import files_of, language_parent, receipt_of, run_job, unpacked
from tests.engine.tiny import tiny_text_rows, write_rows
from tests.engine.tiny_lm import llama_config, tiny_chat_rows, tiny_decoder, tiny_lm_rows

pytestmark = pytest.mark.usefixtures("measured_here")

Json = dict[str, Any]
UNUSED = tuple(("z", letter) for letter in "bcdfghjklmnpqrst")
Q8 = {"format": "gguf", "number": "q8_0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose `models` holds a base with tokens that no text has."""
    made = tmp_path_factory.mktemp("language")
    tiny_decoder(made / "models" / "tiny-decoder", llama_config(vocab_size=261 + len(UNUSED)), further=UNUSED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTYTWO_MODELS_DIR", str(made / "models"))
        yield made


@pytest.fixture(scope="module")
def parent(folder: Path) -> Json:
    """A model whose training normalised its texts."""
    return language_parent(folder, [{"number": 1, "whitespace": "keep_lines"}])


@pytest.fixture(scope="module")
def narrow(parent: Json, folder: Path) -> Path:
    """The parent as a gguf file of 8 bits, by its format alone."""
    compressed(parent, folder / "narrow", [], export=Q8)
    return folder / "narrow"


def evaluated(parent: Json, folder: Path, **more: Any) -> Json:
    run_job({"kind": "evaluate", "model": "job_parent", "parent": parent, **more}, folder)
    return receipt_of(folder)


def compressed(parent: Json, folder: Path, instructions: list[Any], **more: Any) -> list[Any]:
    body = {"kind": "compress", "model": "job_parent", "parent": parent, "instructions": instructions, **more}
    return run_job(body, folder)


def package_of(folder: Path) -> Path:
    return unpacked(folder / "outputs" / "model.zip", folder / "package")


def test_its_own_test_rows_give_bits_and_perplexity_with_intervals(parent: Json, folder: Path) -> None:
    receipt, trained = evaluated(parent, folder / "own"), receipt_of(folder / "train")
    quality = receipt["quality"]
    assert quality["metric"] == "bits_per_byte"
    assert quality["exported"] == trained["quality"]["exported"]
    assert quality["reference"]["kind"] == "checkpoint"
    assert quality["reference"]["value"] == pytest.approx(quality["exported"]["value"], abs=1e-5)
    low, high = quality["perplexity"]["ci95"]
    assert 1 < low < quality["perplexity"]["exported"] < high
    assert quality["perplexity"]["exported"] == trained["quality"]["perplexity"]["exported"]
    assert quality["agreement"] is None
    assert "base" not in quality
    assert "classes" not in quality
    assert len(quality["golden"]) == 5
    size = (package_of(folder / "train") / "model.safetensors").stat().st_size
    assert receipt["size"]["exported_bytes"] == trained["size"]["exported_bytes"] == size
    assert receipt["size"]["ratio"] == pytest.approx(1.0, abs=0.05)
    assert receipt["latency"]["runs"] >= 8


def test_all_rows_of_a_data_set_go_through_what_the_package_replays(parent: Json, folder: Path) -> None:
    rows = tiny_lm_rows(30, seed=8)
    path = write_rows(rows, folder / "ds_others.parquet", "causal_lm", ())
    receipt = evaluated(parent, folder / "others", dataset=str(path), limits={"max_metric_loss": 0.01})
    answers = LanguageReader(package_of(folder / "train")).answers(list(rows.payloads))
    nats, tokens, sizes = answers.astype(np.float64).sum(axis=0)
    quality = receipt["quality"]
    assert quality["exported"]["n"] == 30
    assert quality["exported"]["value"] == pytest.approx(nats / math.log(2) / sizes, rel=1e-5)
    assert quality["perplexity"]["exported"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert (quality["target_tokens"], quality["target_bytes"]) == (tokens, sizes)
    assert receipt["limits"]["passed"]


def test_the_interval_of_perplexity_is_that_of_a_bootstrap(parent: Json, folder: Path) -> None:
    rows = tiny_lm_rows(30, seed=8)
    path = write_rows(rows, folder / "ds_again.parquet", "causal_lm", ())
    told = evaluated(parent, folder / "again", dataset=str(path))["quality"]["perplexity"]["ci95"]
    answers = LanguageReader(package_of(folder / "train")).answers(list(rows.payloads)).astype(np.float64)
    drawn = np.random.default_rng(1).integers(0, 30, (4000, 30))
    sums = answers[drawn].sum(axis=1)
    low, high = np.quantile(np.exp(sums[:, 0] / sums[:, 1]), [0.025, 0.975])
    assert told == [pytest.approx(low, rel=0.02), pytest.approx(high, rel=0.02)]


def test_rows_of_another_kind_are_refused(parent: Json, folder: Path) -> None:
    chat = write_rows(tiny_chat_rows(20), folder / "ds_chat.parquet", "causal_lm", ())
    said = "are conversations, the model was trained on plain texts"
    with pytest.raises(InvalidData, match=said):
        evaluated(parent, folder / "refused", dataset=str(chat))
    with pytest.raises(InvalidData, match=said):
        compressed(parent, folder / "refused", [48], dataset=str(chat))
    classes = write_rows(tiny_text_rows(20), folder / "ds_classes.parquet", "text_classification")
    with pytest.raises(InvalidData, match="the model serves causal_lm"):
        evaluated(parent, folder / "refused", dataset=str(classes))


def test_a_format_alone_makes_it_smaller_and_is_judged_by_its_file(narrow: Path, parent: Json, folder: Path) -> None:
    receipt, trained = receipt_of(narrow), receipt_of(folder / "train")
    size = (package_of(narrow) / gguf.FILE).stat().st_size
    assert receipt["plan"] == []
    assert receipt["size"]["exported_bytes"] == size < 0.6 * receipt["size"]["reference_bytes"]
    assert [one["name"] for one in receipt["limits"]["checks"]] == ["smaller_file"]
    assert receipt["quality"]["reference"]["value"] == trained["quality"]["exported"]["value"]
    assert receipt["quality"]["loss"]["value"] < 0.05
    assert "base" not in receipt["quality"]
    config = json.loads((package_of(narrow) / "config.json").read_text())
    assert [step["name"] for step in config["preprocess"]] == ["text_normalization"]
    # The training wrote safetensors: what is evaluated is the file that there is.
    judged = evaluated({**parent, **files_of(narrow)}, folder / "narrow_judged")
    assert judged["quality"]["exported"] == receipt["quality"]["exported"]
    assert judged["size"]["exported_bytes"] == size
    assert judged["size"]["ratio"] == pytest.approx(receipt["size"]["ratio"], abs=0.02)


def test_a_file_that_did_not_get_smaller_is_no_compression(parent: Json, folder: Path) -> None:
    with pytest.raises(InvalidPlan) as caught:
        compressed(parent, folder / "refused", [])
    assert {fault.code for fault in caught.value.faults} == {"nothing_to_do"}
    assert "gguf" in caught.value.faults[0].remedy
    with pytest.raises(LimitMissed, match="exported_bytes"):
        compressed(parent, folder / "missed", [], export=Q8, limits={"max_size_bytes": 10})


def test_a_smaller_vocabulary_is_loaded_by_strangers_and_judged_again(parent: Json, folder: Path) -> None:
    events = compressed(parent, folder / "trimmed", [48], dataset=parent["spec"]["dataset"])
    assert {"model", "checkpoint", "receipt"} <= {one.kind for one in events if isinstance(one, FileWritten)}
    receipt, package = receipt_of(folder / "trimmed"), package_of(folder / "trimmed")
    (step,) = receipt["plan"]
    assert step["effects"]["rows_removed"] == len(UNUSED)
    assert step["effects"]["texts_changed"] == step["effects"]["tokens_gone"] == 0
    assert receipt["size"]["exported_bytes"] < receipt["size"]["reference_bytes"]
    # What went had some probability, and no text lost a token.
    assert receipt["quality"]["loss"]["value"] <= 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(package), AutoTokenizer.from_pretrained(package)
    assert model.config.vocab_size == len(tokenizer) == 261
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    text = text_of(tiny_lm_rows(1).payloads[0])
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    smaller = {**parent, **files_of(folder / "trimmed")}
    judged = evaluated(smaller, folder / "trimmed_judged")
    assert judged["quality"]["exported"] == receipt["quality"]["exported"]
    compressed(smaller, folder / "trimmed_narrow", [], export=Q8)
    assert receipt_of(folder / "trimmed_narrow")["size"]["exported_bytes"] < receipt["size"]["exported_bytes"]


def test_a_student_says_by_its_configuration_how_deep_it_is(parent: Json, folder: Path) -> None:
    plan = [{"number": 43, "steps": 20}]
    compressed(parent, folder / "student", plan, dataset=parent["spec"]["dataset"])
    receipt, package = receipt_of(folder / "student"), package_of(folder / "student")
    assert set(receipt["plan"][0]["effects"]) == {"score_lost"}
    checkpoint = unpacked(folder / "student" / "outputs" / "checkpoint.zip", folder / "student" / "checkpoint")
    for stored in (package, checkpoint):
        assert not (stored / SHAPES).exists()
        assert AutoModelForCausalLM.from_pretrained(stored).config.num_hidden_layers == 1
    judged = evaluated({**parent, **files_of(folder / "student")}, folder / "student_judged")
    assert judged["quality"]["exported"] == receipt["quality"]["exported"]
    assert judged["size"]["parameters"] == dict.fromkeys(
        ("reference", "exported"), receipt["size"]["parameters"]["exported"]
    )


def test_slips_of_the_keyboard_are_told_in_bits(parent: Json, folder: Path) -> None:
    receipt = evaluated(parent, folder / "slips", instructions=[36])
    found, exported = receipt["robustness"], receipt["quality"]["exported"]
    assert (found["metric"], found["n"], found["clean"]) == ("bits_per_byte", exported["n"], exported["value"])
    assert found["robust"] > found["clean"]


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [(45, "compress", "widths of single layers"), (47, "compress", "gguf")],
)
def test_what_does_not_serve_is_refused_before_it_begins(
    parent: Json, folder: Path, number: int, kind: str, reason: str
) -> None:
    body = {"kind": kind, "model": "job_parent", "parent": parent, "instructions": [number]}
    with pytest.raises(InvalidPlan) as caught:
        run_job(body | {"dataset": parent["spec"]["dataset"]}, folder / "refused")
    (fault,) = caught.value.faults
    assert (fault.pointer, fault.code) == ("/instructions/0", "wrong_task")
    assert reason in fault.detail
    assert fault.remedy
