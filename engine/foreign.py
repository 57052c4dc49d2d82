"""A trained classifier that no job here made: a folder of the models directory. Knows no job, reads no weights' values.

The folder is in the Hugging Face layout, with safetensors weights, a tokenizer and a head that was trained; code that
lies in it is never run.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification

from engine.errors import Fault, InvalidData
from engine.models import built_in, find, folder_of

_ENDING = "ForSequenceClassification"
_OF_SEVERAL = frozenset({"regression", "multi_label_classification"})


@dataclass(frozen=True)
class Foreign:
    """What a folder was found to be; `labels` by class index."""

    name: str
    task: str
    labels: tuple[str, ...]


def look(name: str, local: Path | None) -> Foreign | Fault:
    """A trained model by the name of its folder under `local`, or why it can begin no job."""
    folder = folder_of(name, local)
    if folder is None:
        if built_in(name):
            detail = f"{name} is a base model, without a head that was trained"
            return _fault("no_head", detail, "train it, and name that job")
        detail = f"there is neither a trained model nor a folder {name[:80]!r} in the server's models directory"
        return _fault("unknown_model", detail, "GET /v1/models lists what there is")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        find(name, local, weights=False)
    except InvalidData as error:
        return _fault("unsafe_model", error.detail, error.remedy)
    except (OSError, ValueError) as error:
        return _fault("no_model", f"config.json of {name} cannot be read: {error}", "save the model again")
    for fault in _faults(name, folder, config):
        return fault
    return Foreign(name, "text_classification", _labels(config))


def _faults(name: str, folder: Path, config: Any) -> Iterator[Fault]:
    """What is wrong with a folder, first things first: the later ones rest on the earlier."""
    kinds = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(kinds, list) or not kinds or not str(kinds[0]).endswith(_ENDING):
        detail = f"{name} is no text classifier with a trained head: its config.json names {kinds or 'no architecture'}"
        yield _fault("no_head", detail, "train it as a base model, and name that job")
        return
    if config.get("problem_type") in _OF_SEVERAL:
        detail = f"{name} was trained for {config['problem_type']}, so a text has no single class"
        yield _fault("wrong_task", detail, "name a model that tells classes apart")
    labels = _labels(config)
    if len(set(labels)) < max(2, len(labels)):
        detail = f"config.json of {name} does not name its classes, each once, under id2label"
        yield _fault("no_head", detail, "write their names there, by number")
        return
    if not (folder / "tokenizer.json").is_file():
        yield _fault("no_tokenizer", f"{name} has no tokenizer.json", "save it with a fast tokenizer")
    try:
        missing = _missing(folder, len(labels))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        yield _fault("no_model", f"{name} cannot be read: {error}", "save the model again")
        return
    if missing:
        detail = (
            f"{name} has no trained head for {len(labels)} classes: {', '.join(missing[:3])} are not in its weights"
        )
        yield _fault("no_head", detail, "train it as a base model, and name that job")


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    """The classes by number; none where they are not numbered from 0 without a gap."""
    named = config.get("id2label")
    numbered = {str(number): str(label) for number, label in named.items()} if isinstance(named, dict) else {}
    places = [str(number) for number in range(len(numbered))]
    return tuple(numbered[place] for place in places) if set(places) == set(numbered) else ()


def _missing(folder: Path, classes: int) -> list[str]:
    """Tensors of the head that the weights lack, or have in another shape: read off names and shapes alone."""
    config = AutoConfig.from_pretrained(folder, num_labels=classes, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    stored: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            stored |= {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    inside = f"{model.base_model_prefix}."
    head = {name: list(one.shape) for name, one in model.state_dict().items() if not name.startswith(inside)}
    return [name for name, shape in head.items() if stored.get(name) != shape]


def _fault(code: str, detail: str, remedy: str) -> Fault:
    return Fault("/model", code, detail, remedy)
