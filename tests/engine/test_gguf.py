"""A GGUF file gives the model's likelihoods when a stranger reads it back, with tokens, template and special ids."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

from engine import job
from engine.decoders import convert
from engine.errors import InvalidData
from engine.events import Listed, PhaseStarted
from engine.exporters import FORMATS, gguf
from engine.gguf_weights import model_of
from engine.inference import eager_answers
from engine.interrupt import Interrupt
from engine.job import run_job
from engine.language_reader import LanguageReader
from engine.run import Run
from engine.spec import Spec
from tests.engine.test_causal_lm_delivery import prepared
from tests.engine.tiny_lm import llama_config, tiny_decoder, tiny_lm_rows, tiny_lm_run

TEXTS = [str(one) for one in tiny_lm_rows(12).payloads]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A model of grouped queries, so that heads of queries and of keys differ in number."""
    config = llama_config(num_attention_heads=4, num_key_value_heads=2, hidden_size=64, intermediate_size=96)
    found = tiny_lm_run(tmp_path, base=tiny_decoder(tmp_path / "base", config))
    found.model = found.task.build().eval()
    return found


def written(run: Run, folder: Path, name: str) -> Path:
    folder.mkdir()
    path = FORMATS[name].write(run, run.model, folder)
    assert path == folder / FORMATS[name].file
    run.task.describe(folder, run.model, [])
    return folder


def difference(run: Run, folder: Path) -> float:
    """The largest difference of a row's nats a token."""
    expected = eager_answers(run.task, run.model, run.task.encode(TEXTS))
    found = LanguageReader(folder, load=gguf.load_gguf).answers(TEXTS)
    assert np.array_equal(found[:, 1:], expected[:, 1:])
    return float((np.abs(found[:, 0] - expected[:, 0]) / expected[:, 1]).max())


@pytest.mark.parametrize(("name", "most"), [("gguf", 1e-3), ("gguf-q8_0", 0.02)])
def test_the_file_answers_as_the_model(run: Run, tmp_path: Path, name: str, most: float) -> None:
    assert difference(run, written(run, tmp_path / "package", name)) < most


def test_rows_in_another_rotary_order_are_another_model(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "_rotary", lambda name, values, config: values)
    assert difference(run, written(run, tmp_path / "package", "gguf")) > 1e-3


def test_eight_bits_are_half_of_sixteen(run: Run, tmp_path: Path) -> None:
    half, eighth = (written(run, tmp_path / name, name) / gguf.FILE for name in ("gguf", "gguf-q8_0"))
    assert eighth.stat().st_size < 0.8 * half.stat().st_size


def test_tokens_special_ids_and_template_travel_along(run: Run, tmp_path: Path) -> None:
    folder = written(run, tmp_path / "package", "gguf")
    alone = tmp_path / "alone"
    alone.mkdir()
    (folder / gguf.FILE).rename(alone / gguf.FILE)
    found, ours = AutoTokenizer.from_pretrained(alone, gguf_file=gguf.FILE), run.task.tokenizer  # type: ignore[attr-defined]
    assert found.chat_template == ours.chat_template
    assert (found.bos_token_id, found.eos_token_id) == (ours.bos_token_id, ours.eos_token_id)
    for text in TEXTS[:4]:
        assert found(text)["input_ids"] == ours(text)["input_ids"]
    assert (folder / "Modelfile").read_text() == "FROM ./model.gguf\n"


def test_other_architectures_are_refused_with_the_way_out(tmp_path: Path) -> None:
    config = GPTNeoXConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    run = tiny_lm_run(tmp_path, base=tiny_decoder(tmp_path / "base", config, GPTNeoXForCausalLM))
    run.model = run.task.build()
    with pytest.raises(InvalidData, match="gpt_neox") as refused:
        written(run, tmp_path / "package", "gguf")
    assert "safetensors" in refused.value.remedy


def test_a_whole_job_ships_as_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_decoder(tmp_path / "models" / "tiny")
    monkeypatch.setenv("FIFTYTWO_MODELS_DIR", str(tmp_path / "models"))
    body: dict[str, Any] = {
        "task": "causal_lm",
        "model": "tiny",
        "dataset": str(prepared(tmp_path, [str(one) for one in tiny_lm_rows(120).payloads])),
        "training": {"epochs": 1, "batch_size": 8, "max_length": 48},
        "export": {"format": "gguf", "number": "q8_0"},
    }
    run_job(Spec.model_validate(body), tmp_path / "out", Listed(), job="job_1", interrupt=Interrupt())
    receipt = json.loads((tmp_path / "out" / "outputs" / "receipt.json").read_bytes())
    with zipfile.ZipFile(tmp_path / "out" / "outputs" / "model.zip") as archive:
        names = archive.namelist()
        assert receipt["size"]["exported_bytes"] == archive.getinfo("model.gguf").file_size
    assert {"model.gguf", "Modelfile", "tokenizer.json", "config.json", "MODEL_CARD.md"} <= set(names)
    assert abs(receipt["quality"]["loss"]["value"]) < 0.05


def test_a_base_is_read_as_transformers_reads_it(run: Run, tmp_path: Path) -> None:
    folder = written(run, tmp_path / "package", "gguf-q8_0")
    (folder / "config.json").unlink()  # what says that a folder needs no conversion
    convert(folder / gguf.FILE, tmp_path / "base")
    found: dict[str, Any] = load_file(tmp_path / "base" / "model.safetensors")
    expected = gguf.load_gguf(folder).state_dict()
    assert set(found) == set(expected) - {"lm_head.weight"}
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template == run.task.tokenizer.chat_template  # type: ignore[attr-defined]


def test_only_the_first_job_tells_that_its_base_is_converted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(run, tmp_path / "package", "gguf")
    (folder / "config.json").unlink()
    monkeypatch.setenv("FIFTYTWO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("engine.models._packaged", lambda _: folder)
    spec, sink = Spec.model_validate({"task": "causal_lm", "dataset": "ds_1"}), Listed()
    first, second = (job._base(spec, sink) for _ in range(2))
    assert first == second
    (told,) = sink.events
    assert isinstance(told, PhaseStarted)
    assert told.phase == "converting_base_model"


def test_a_base_of_another_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="type qwen2") as refused:
        model_of(tmp_path / "model.gguf", AutoConfig.for_model("qwen2"))
    assert "safetensors" in refused.value.remedy
