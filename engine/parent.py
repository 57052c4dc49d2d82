"""A trained model as the beginning of another job: its files, its task, and the rows that it was judged by.

Knows no kind of job. The rows are dealt by the very hooks of the training, so a test row of the parent is one here.
"""

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from engine.archive import SHAPES
from engine.data import Data, Source, read_rows
from engine.errors import Fault, InvalidData, InvalidPlan
from engine.events import Listed
from engine.exporters import FORMATS
from engine.foreign import look
from engine.guard import PRIVATE
from engine.ingest.canonical import hash_of
from engine.job import dealt, facts_of
from engine.kinds import InFolder, Parent
from engine.models import Base, find, learned, models_dir
from engine.plan import Plan
from engine.ports import Pair, Task, image_of
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec
from engine.tasks import TASKS
from engine.tasks.causal_lm import CausalLM
from engine.tasks.text_classification import TextClassification

_MEND = "name a job that has succeeded, or train the model again"


@dataclass(frozen=True)
class Opened:
    """A parent whose files lie in folders; `preprocess` is what an input goes through before the model sees it."""

    spec: Spec
    package: Path
    checkpoint: Path
    base: Base
    task: Task
    preprocess: Sequence[Mapping[str, Any]]

    @property
    def facts(self) -> frozenset[str]:
        """What the instructions of the training made true of it."""
        return frozenset().union(*(one.provides for one in self.spec.instructions))

    @property
    def format(self) -> str:
        """The format of the package, by the file that holds its weights.

        Raises:
            InvalidData: where it holds none.
        """
        for name, one in FORMATS.items():
            if (self.package / one.file).is_file():
                return name
        raise InvalidData("the model's package holds no file of a format that is known", remedy=_MEND)

    def sources(self) -> list[tuple[Source, str]]:
        """The files of the training, each with its role."""
        return [(Source.open(Path(path)), role) for role, path in self.spec.files()]

    def check(self, source: Source) -> None:
        """Refuse a file of another task, or conversations where the model takes plain texts, and the reverse.

        Raises:
            InvalidData: naming both.
        """
        if source.task != self.spec.task:
            detail = f"{source.id} was prepared for {source.task}, the model serves {self.spec.task}"
            raise InvalidData(detail, remedy=f"give rows for {self.spec.task}")
        kinds = {False: "plain texts", True: "conversations"}
        mine = isinstance(self.task, CausalLM) and self.task.chat
        if source.chat is not mine:
            detail = f"the rows of {source.id} are {kinds[source.chat]}, the model was trained on {kinds[mine]}"
            raise InvalidData(detail, remedy=f"give {kinds[mine]}")

    def trained_on(self) -> npt.NDArray[np.str_] | None:
        """The ids of the rows that the model was trained on; None where they are not at hand, and of a private model.

        A count over rows of one's choosing would say of a row whether such a model knows it.
        """
        if PRIVATE in self.facts or not all(Path(path).is_file() for _, path in self.spec.files()):
            return None
        return self.deal(self.sources())["train"].ids

    def deal(self, sources: Sequence[tuple[Source, str]]) -> dict[str, Rows]:
        """The rows of some files by split, through the hooks that dealt those of the training.

        Raises:
            InvalidData: where they do not fit the model, or the training's own plan holds no more.
        """
        rows = read_rows(sources, self.task.labels)
        facts = facts_of(rows, [source for source, _ in sources], pretrained=learned(self.spec.base_model))
        try:
            plan = Plan.of(self.spec, facts)
        except InvalidPlan as error:
            raise InvalidData(
                f"the rows cannot be dealt as they were in the training: {error.detail}",
                remedy="give rows with the columns of the training's, or train the model again",
            ) from error
        return dealt(Run(self.spec, plan, Listed()), rows)


def open_parent(parent: Parent | InFolder, work: Path) -> Opened:
    """Unpack a parent into folders of `work` and open its task on its checkpoint, or on the folder that it is.

    Raises:
        InvalidData: where the files are not what a job hands over.
        InvalidPlan: where a folder holds no trained model.
    """
    if isinstance(parent, InFolder):
        return _open_folder(parent.spec)
    package = _folder(Path(parent.package), work / "parent_package")
    checkpoint = _folder(Path(parent.checkpoint), work / "parent_checkpoint")
    try:
        config = json.loads((package / "config.json").read_text(encoding="utf-8"))
        task = TASKS[parent.spec.task].reopen(checkpoint)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidData(f"the model's files cannot be read: {error}", remedy=_MEND) from error
    base = Base(parent.job or parent.spec.base_model, checkpoint)
    return Opened(parent.spec, package, checkpoint, base, task, config.get("preprocess") or [])


def _open_folder(spec: Spec) -> Opened:
    found = look(spec.base_model, models_dir())
    if isinstance(found, Fault):
        raise InvalidPlan([found])
    base = find(found.name, models_dir())
    assert base.folder is not None  # it was looked at
    task = TextClassification(base, found.labels, spec.training.max_length)
    return Opened(spec, base.folder, base.folder, base, task, [])


def save_reference(model: nn.Module, checkpoint: Path, folder: Path) -> int:
    """A parent's weights in the Hugging Face layout, with the shapes where it has its own; the bytes of the weights."""
    model.save_pretrained(folder)  # type: ignore[operator]  # a method of every transformers model
    if (checkpoint / SHAPES).is_file():
        shutil.copyfile(checkpoint / SHAPES, folder / SHAPES)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def without(rows: Rows, others: Rows) -> Rows:
    """The rows whose content is none of the others'; of pairs none with a picture of theirs either."""
    left = rows.take(np.flatnonzero(~np.isin(rows.ids, others.ids)))
    if not len(others) or not isinstance(others.payloads[0], Pair):
        return left
    seen = {hash_of(image_of(one)) for one in others.payloads}
    return left.take(np.flatnonzero([hash_of(image_of(one)) not in seen for one in left.payloads]))


def none_of(rows: Rows) -> Rows:
    """No row, of the same kind."""
    return rows.take(np.arange(0)).loaded()


def testing(task: Task, test: Rows) -> Data:
    """Rows to be judged by and none to learn from."""
    return Data(none_of(test), none_of(test), test, task)


def told(source: Source, splits: Mapping[str, int], parent: Opened) -> dict[str, Any]:
    """A data set as a receipt lists it, with the rows that were used of it; of a private model's no more than these."""
    rows = sum(splits.values()) if PRIVATE in parent.facts else source.rows
    return {"id": source.id, "sha256": source.sha256, "rows": rows, "splits": dict(splits)}


def _folder(source: Path, folder: Path) -> Path:
    """The folder itself, or the one that a ZIP is unpacked into.

    Raises:
        InvalidData: where it is neither.
    """
    if source.is_dir():
        return source
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidData(f"{source.name} is no ZIP of a model: {error}", remedy=_MEND) from error
    return folder
