"""Base models: from packages, from local folders, from a hub that is stood in for; and what is never loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import RobertaConfig, RobertaForSequenceClassification

from engine import models
from engine.errors import InvalidData
from engine.tasks.text_classification import TextClassification
from tests.engine.tiny import LABELS, tiny_bert


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A models folder with one encoder."""
    tiny_bert(tmp_path / "tiny")
    return tmp_path


def test_a_packaged_base_needs_no_hub() -> None:
    base = models.find("minilm-l6", None)
    assert base.pretrained
    assert base.folder is not None
    assert (base.folder / "model.safetensors").is_file()
    assert len(base.sha256() or "") == 64


def test_a_folder_in_the_hubs_layout_is_loaded(local: Path) -> None:
    base = models.find("tiny", local)
    model = TextClassification(base, LABELS, 16).build()
    assert sum(weight.numel() for weight in model.parameters()) > 1000
    assert models.fault("tiny", "text_classification", local) is None
    assert [one["id"] for one in models.describe(local)] == [
        "minilm-l6",
        "smollm2-135m",
        "pair-encoder",
        "resnet-small",
        "resnet-18",
        "tiny",
    ]


def test_a_base_with_a_head_for_other_classes_gets_a_fresh_one(local: Path) -> None:
    base = tiny_bert(local / "judges-two")
    built = []
    for _ in range(2):
        torch.manual_seed(5)
        built.append(TextClassification(base, ("a", "b", "c"), 32).build().state_dict())
    assert built[0]["classifier.weight"].shape == (3, 32)
    assert all(torch.equal(weight, built[1][name]) for name, weight in built[0].items())
    two = TextClassification(base, LABELS, 32).build().state_dict()
    assert all(torch.equal(weight, two[name]) for name, weight in built[0].items() if "classifier" not in name)


def test_a_text_is_no_longer_than_the_positions_behind_padding(local: Path) -> None:
    config = RobertaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
        pad_token_id=1,
    )
    RobertaForSequenceClassification(config).save_pretrained(local / "tiny")
    task = TextClassification(models.find("tiny", local), LABELS, 128)
    assert task.max_length == 32
    batch = task.collate(task.encode(["word1 " * 200]), [0])
    assert task.forward(task.build(), batch).shape == (1, 2)


@pytest.mark.parametrize("name", ["../tiny", "..", "a/b/c", "tiny\0", "", "no such name"])
def test_a_name_never_leaves_the_models_folder(local: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidData):
        models.find(name, local / "tiny")


def test_weights_that_can_run_code_are_refused(local: Path) -> None:
    (local / "tiny" / "model.safetensors").rename(local / "tiny" / "pytorch_model.bin")
    fault = models.fault("tiny", "text_classification", local)
    assert fault is not None
    assert "safetensors" in fault.detail


@pytest.mark.parametrize("content", [None, "no JSON", "[1]", "\udcff"])
def test_weights_that_say_not_what_they_are_are_refused(
    local: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub gives such a folder for an adapter."""
    config = local / "tiny" / "config.json"
    config.unlink()
    if content is not None:
        config.write_bytes(content.encode("utf-8", "surrogateescape"))
    monkeypatch.setattr(models, "_from_hub", lambda *_: local / "tiny")
    for weights in (True, False):
        with pytest.raises(InvalidData, match=r"config\.json"):
            models.find("someone/adapter", local, weights=weights)
    fault = models.fault("someone/adapter", "text_classification", local)
    assert fault is not None
    assert (fault.pointer, fault.code) == ("/model", "unknown_model")
    assert "merged" in fault.remedy


def test_a_base_that_brings_code_is_refused(local: Path) -> None:
    config = local / "tiny" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(InvalidData, match="code of its own"):
        models.find("tiny", local)


@pytest.mark.parametrize(
    ("name", "task"),
    [("minilm-l6", "image_classification"), ("resnet-18", "text_classification"), ("tiny", "image_classification")],
)
def test_a_base_serves_its_task_alone(local: Path, name: str, task: str) -> None:
    fault = models.fault(name, task, local)
    assert fault is not None
    assert (fault.pointer, fault.code) == ("/model", "wrong_task")


class Hub:
    """Stands for a hub with one repository, and keeps what was asked for."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder, self.files, self.fetched = folder, files, list[str]()

    def snapshot_download(self, name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        if local_files_only or name != "team/tiny":
            raise LocalEntryNotFoundError("not cached")
        self.fetched += allow_patterns
        return str(self.folder)

    def model_info(self, _name: str, timeout: float) -> Any:
        assert timeout <= 10
        return type("Info", (), {"siblings": [type("File", (), {"rfilename": file}) for file in self.files]})


def stand_in(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(models, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(models, "HfApi", lambda: hub)


def test_a_submit_looks_at_a_hub_id_and_fetches_no_weights(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(local / "tiny", ["config.json", "model.safetensors"])
    stand_in(monkeypatch, hub)
    assert models.fault("team/tiny", "text_classification", None) is None
    assert "config.json" in hub.fetched
    assert "*.safetensors" not in hub.fetched
    assert models.find("team/tiny", None).folder == local / "tiny"
    assert "*.safetensors" in hub.fetched


def test_a_hub_id_without_safetensors_or_that_no_hub_has_is_a_fault(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, Hub(local / "tiny", ["config.json", "pytorch_model.bin"]))
    unsafe = models.fault("team/tiny", "text_classification", None)
    assert unsafe is not None
    assert "safetensors" in unsafe.detail
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    absent = models.fault("team/other", "text_classification", None)
    assert absent is not None
    assert absent.code == "unknown_model"
    assert "LocalEntryNotFoundError" in absent.detail


def test_a_hub_that_cannot_be_reached_is_a_fault_whatever_its_client_raises(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreachable(Exception):
        """Like that of an HTTP library that nobody here knows."""

    hub = Hub(local / "tiny", [])
    stand_in(monkeypatch, hub)

    def model_info(_name: str, timeout: float) -> Any:
        raise Unreachable("no route")

    monkeypatch.setattr(hub, "model_info", model_info)
    absent = models.fault("x", "text_classification", None)
    assert absent is not None
    assert (absent.pointer, absent.code) == ("/model", "unknown_model")
    assert "Unreachable" in absent.detail
    assert "/v1/models" in absent.remedy
