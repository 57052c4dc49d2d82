"""A GGUF file gives the model's likelihoods when a stranger reads it back, with tokens, template and special ids."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
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
from engine.lazy import gguf as library
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


def fields(folder: Path) -> dict[str, Any]:
    """The metadata of the file."""
    return {name: one.contents() for name, one in library().GGUFReader(folder / gguf.FILE).fields.items()}


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


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}, "of the kind linear"),
        ({"attention_bias": True}, "without biases"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    run = tiny_lm_run(tmp_path, base=tiny_decoder(tmp_path / "base", llama_config(**config)))
    run.model = run.task.build()
    with pytest.raises(InvalidData, match=says) as refused:
        written(run, tmp_path / "package", "gguf")
    assert "safetensors" in refused.value.remedy


_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_WORDS = {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("parts", "model", "named"),
    [
        ([_BYTES], {}, "gpt-2"),
        ([_DIGITS, _BYTES], {}, "smollm"),
        ([{**_DIGITS, "individual_digits": False}, _BYTES], {}, None),
        ([_WORDS, {**_BYTES, "use_regex": False}], {}, None),  # Llama 3
        ([{**_BYTES, "add_prefix_space": True}], {}, None),
        ([{"type": "Metaspace"}], {"byte_fallback": True}, None),  # Llama 2
        ([_BYTES], {"type": "Unigram"}, None),
    ],
)
def test_a_tokenizer_that_llama_cpp_does_not_know_by_this_name_is_refused(
    parts: list[dict[str, Any]], model: dict[str, Any], named: str | None
) -> None:
    whole = {"type": "Sequence", "pretokenizers": parts} if len(parts) > 1 else parts[0]
    described = {"model": {"type": "BPE", **model}, "normalizer": None, "pre_tokenizer": whole}
    if named is None:
        with pytest.raises(InvalidData, match="split as GPT-2"):
            gguf._splitting(described)
    else:
        assert gguf._splitting(described) == named


def test_a_text_begins_in_the_file_as_it_did_in_the_training(run: Run, tmp_path: Path) -> None:
    tokenizer = run.task.tokenizer  # type: ignore[attr-defined]
    assert "tokenizer.ggml.add_bos_token" not in fields(written(run, tmp_path / "plain", "gguf"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    found = fields(written(run, tmp_path / "begun", "gguf"))
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert "tokenizer.ggml.add_eos_token" not in found


def test_heads_of_a_width_of_their_own_are_told(tmp_path: Path) -> None:
    run = tiny_lm_run(tmp_path, base=tiny_decoder(tmp_path / "base", llama_config(head_dim=16)))
    run.model = run.task.build().eval()
    folder = written(run, tmp_path / "package", "gguf")
    assert fields(folder)["llama.attention.key_length"] == fields(folder)["llama.attention.value_length"] == 16
    assert difference(run, folder) < 1e-3


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
