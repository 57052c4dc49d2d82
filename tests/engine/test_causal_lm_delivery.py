"""A language model handed over: its files, what a stranger makes of them, its receipt, and runs that were stopped."""

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine import decoders
from engine.checkpoint import Snapshots
from engine.data import Source
from engine.deliver import audited, deliver
from engine.errors import WrongExport
from engine.events import FileWritten, Listed
from engine.ingest.__main__ import ingest
from engine.ingest.findings import Choices, Limits
from engine.interrupt import Interrupt, StopRequested
from engine.job import run_job
from engine.language_reader import LanguageReader
from engine.models import Base
from engine.parts import spans
from engine.run import Run
from engine.spec import Spec
from engine.train import train
from tests.engine.measured import in_this_process
from tests.engine.tiny_lm import SENTENCES, lm_rows, tiny_decoder, tiny_lm_rows, tiny_lm_run


def prepared(folder: Path, texts: Sequence[str], name: str = "rows.jsonl") -> Path:
    """Texts as a canonical file."""
    source, out = folder / name, folder / "ds_1.parquet"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    findings, _ = ingest(source, name, "causal_lm", out, Choices({}), Limits())
    assert findings.problems == []
    return out


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Listed]:
    """A whole job over a local base: the folder, the receipt and what was told."""
    folder = tmp_path_factory.mktemp("job")
    tiny_decoder(folder / "models" / "tiny")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FIFTYTWO_MODELS_DIR", str(folder / "models"))
        training = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "max_length": 48}
        chosen = [{"name": "text_normalization", "whitespace": "keep_lines"}]
        path = prepared(folder, [str(one) for one in tiny_lm_rows(120).payloads])
        body = {
            "task": "causal_lm",
            "model": "tiny",
            "dataset": str(path),
            "training": training,
            "instructions": chosen,
        }
        sink = Listed()
        run_job(
            Spec.model_validate(body),
            folder / "out",
            sink,
            job="job_1",
            interrupt=Interrupt(),
        )
    with zipfile.ZipFile(folder / "out" / "outputs" / "model.zip") as archive:
        archive.extractall(folder / "package")
    with zipfile.ZipFile(folder / "out" / "outputs" / "checkpoint.zip") as archive:
        archive.extractall(folder / "checkpoint")
    return folder, json.loads((folder / "out" / "outputs" / "receipt.json").read_text()), sink


def bits_per_byte(folder: Path, texts: Sequence[str], length: int = 48) -> float:
    """What a stranger's few lines of transformers find."""
    return bits_per_byte_of(
        AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), texts, length
    )


def bits_per_byte_of(model: Any, tokenizer: Any, texts: Sequence[str], length: int = 48) -> float:
    """The same of a model that is at hand."""
    nats = sizes = 0.0
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        for start, stop in spans(len(ids), length):
            part = torch.tensor([ids[start:stop]])
            with torch.no_grad():
                nats += float(model(input_ids=part, labels=part).loss) * (stop - start - 1)
        sizes += len(text.encode()) - 1  # the first byte has nothing before it
    return nats / math.log(2) / sizes


def test_the_package_is_a_folder_that_strangers_load(done: tuple[Path, dict[str, Any], Listed]) -> None:
    folder, receipt, sink = done
    names = {path.name for path in (folder / "package").iterdir()}
    wanted = {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"}
    assert wanted <= names
    config = json.loads((folder / "package" / "config.json").read_text())
    assert (config["task"], config["max_length"]) == ("causal_lm", 48)
    assert [step["name"] for step in config["preprocess"]] == ["text_normalization"]
    told = {event.kind: event for event in sink.events if isinstance(event, FileWritten)}
    assert {"model", "checkpoint", "receipt"} <= set(told)
    test = [str(one) for one in _test_rows(folder)]
    assert receipt["quality"]["exported"]["n"] == len(test)
    assert receipt["quality"]["exported"]["value"] == pytest.approx(bits_per_byte(folder / "package", test), rel=1e-4)
    assert bits_per_byte(folder / "checkpoint", test) == pytest.approx(bits_per_byte(folder / "package", test))


def _test_rows(folder: Path) -> list[Any]:
    """By the content hash, as the job dealt them."""
    rows = lm_rows([str(one) for one in tiny_lm_rows(120).payloads])
    share = [int(value[:8], 16) / 2**32 for value in rows.ids.tolist()]
    return [payload for payload, one in zip(rows.payloads, share, strict=True) if one >= 0.9]


def test_the_receipt_shows_the_base_the_prompts_and_what_they_rest_on(
    done: tuple[Path, dict[str, Any], Listed],
) -> None:
    folder, receipt, _ = done
    quality, base = receipt["quality"], receipt["quality"]["base"]
    test = [str(one) for one in _test_rows(folder)]
    assert base["value"] == pytest.approx(bits_per_byte(folder / "models" / "tiny", test), rel=1e-4)
    assert base["value"] > 1.3 * quality["exported"]["value"]
    assert base["gain"]["value"] == pytest.approx(base["value"] - quality["exported"]["value"], abs=1e-5)
    assert base["gain"]["ci95"][0] > 0
    assert base["perplexity"] > quality["perplexity"]["exported"] == quality["perplexity"]["reference"]
    low, high = quality["exported"]["ci95"]
    assert low < quality["exported"]["value"] < high
    assert quality["agreement"] is None
    assert quality["flipped"] == []
    assert len(quality["golden"]) == 5
    assert quality["generation"]["special_token_ids"] == {"bos_token": 1, "eos_token": 2, "pad_token": 0}
    assert len(quality["generation"]["chat_template_sha256"]) == 64
    size = receipt["size"]
    assert size["exported_bytes"] == (folder / "package" / "model.safetensors").stat().st_size
    assert size["ratio"] == 1.0
    assert receipt["latency"]["runs"] >= 8


def test_a_stranger_gets_the_golden_answers(done: tuple[Path, dict[str, Any], Listed]) -> None:
    folder, receipt, _ = done
    package = folder / "package"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(package), AutoTokenizer.from_pretrained(package)
    for one in receipt["quality"]["golden"]:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": one["prompt"]}], add_generation_prompt=True, return_dict=False
        )
        for expected in one["token_ids"]:  # without a cache and without `generate`
            with torch.no_grad():
                said = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            assert said == expected
            ids = [*ids, said]


def test_a_model_that_says_nothing_is_no_export(
    done: tuple[Path, dict[str, Any], Listed], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = LanguageReader(done[0] / "package")
    monkeypatch.setattr(reader, "_said", lambda prompt: {"prompt": prompt, "answer": "", "token_ids": []})
    with pytest.raises(WrongExport, match="answers no prompt"):
        reader.golden([])


def test_weights_that_are_not_the_trained_ones_are_refused(tmp_path: Path) -> None:
    run = tiny_lm_run(tmp_path, max_steps=2)
    train(run, Snapshots(tmp_path, run.sink), Interrupt())
    path = prepared(tmp_path, [str(one) for part in ("train", "valid", "test") for one in run.data.rows(part).payloads])
    run.spec = Spec.model_validate({**run.spec.model_dump(), "dataset": str(path)})
    describe = run.task.describe

    def spoiled(folder: Path, model: Any, preprocess: Any) -> None:
        describe(folder, model, preprocess)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1.0}))

    run.task.describe = spoiled  # type: ignore[method-assign]
    with in_this_process(), pytest.raises(WrongExport, match="differ by"):
        deliver(run, tmp_path, [Source.open(path)], Base("tiny", tmp_path / "base"), None)


class Stop(Interrupt):
    """Asks the run to stop after some looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        """What the base sets at its start means nothing here."""


def test_a_stopped_run_goes_on_byte_for_byte(tmp_path: Path) -> None:
    base = tiny_decoder(tmp_path / "base")

    def run() -> Run:
        return tiny_lm_run(tmp_path, base=base, epochs=2)

    whole, stopped = run(), run()
    train(whole, Snapshots(tmp_path / "whole", whole.sink), Interrupt())
    with pytest.raises(StopRequested):
        train(stopped, Snapshots(tmp_path / "parts", stopped.sink), Stop(7))
    assert 0 < stopped.clock.step < whole.clock.step
    resumed = run()
    train(resumed, Snapshots(tmp_path / "parts", resumed.sink), Interrupt())
    one, other = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_gguf_base_is_converted_once_and_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYTWO_CACHE_DIR", str(tmp_path / "cache"))
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.gguf").write_bytes(b"GGUF")
    made: list[Path] = []

    def convert(file: Path, out: Path) -> None:
        tiny_decoder(out)
        made.append(file)
        if len(made) == 1:
            raise OSError("the disk is full")

    monkeypatch.setattr(decoders, "convert", convert)
    with pytest.raises(OSError, match="the disk is full"):
        decoders.converted(package)
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == []
    folder = decoders.converted(package)
    assert decoders.converted(package) == folder
    assert len(made) == 2
    assert decoders.is_decoder(folder)
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [folder.name]
    monkeypatch.delenv("FIFTYTWO_CACHE_DIR")
    monkeypatch.setenv("FIFTYTWO_DATA_DIR", str(tmp_path / "data"))
    assert decoders.cache_dir() == tmp_path / "data" / "cache"


def test_two_processes_that_convert_at_once_end_with_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFTYTWO_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")

    begun: list[Path] = []

    def convert(file: Path, out: Path) -> None:
        tiny_decoder(out)
        begun.append(out)
        if len(begun) == 1:
            decoders.converted(tmp_path)  # another process begins later and ends before

    monkeypatch.setattr(decoders, "convert", convert)
    folder = decoders.converted(tmp_path)
    assert (folder / "model.safetensors").is_file()
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 1


def test_long_and_short_rows_give_the_same_answers_read_back(done: tuple[Path, dict[str, Any], Listed]) -> None:
    reader = LanguageReader(done[0] / "package")
    texts = ["Go.", " ".join(SENTENCES), SENTENCES[0]]
    together, alone = reader.answers(texts), [reader.answers([text])[0] for text in texts]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5)


def test_a_raw_row_goes_through_the_steps_of_the_package(done: tuple[Path, dict[str, Any], Listed]) -> None:
    reader = LanguageReader(done[0] / "package")
    raw, clean = reader.answers(["The\u200b tide   comes in.", "The tide comes in."])
    np.testing.assert_array_equal(raw, clean)


def test_auditors_see_the_folder_that_ships(
    done: tuple[Path, dict[str, Any], Listed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_lm_run(tmp_path, ["feature_squeezing"])
    run.model = run.task.build()
    seen: list[Any] = []
    (auditor,) = run.plan.on("audit")
    monkeypatch.setattr(type(auditor), "audit", lambda self, run, exported, eager: seen.append(exported))
    audited(run, done[0] / "package")
    assert seen[0].folder == done[0] / "package"
    assert seen[0].answers(["Go."], batch_size=1).shape == (1, 3)
