"""The rows of a job: small columns in memory, payloads wherever they lie. Knows neither files nor instructions."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.conversations import each_message
from engine.on_read import OnRead
from engine.ports import Payload

SPLITS = ("train", "valid", "test")
# Facts of a run: what the column of groups is called where every file has one, or that some file has none.
GROUPED_BY, UNGROUPED = "grouped_by:", "ungrouped"
# How many groups the training rows name, where somebody counted them, and in which column.
CLIENTS, CLIENTS_BY = "clients:", "clients_by:"
_OF_PICTURES = 1 << 32  # beyond any number of a caption: there are never so many rows


def group_facts(columns: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """The facts about groups that hold of files with these columns by role."""
    names = {of_file.get("group") for of_file in columns}
    return frozenset({UNGROUPED} if None in names else {f"{GROUPED_BY}{name}" for name in names})


def equal_numbers(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,): 0 for a text that stands alone, and a number from 1 on that equal texts share."""
    repeated = (text for text, count in Counter(texts).items() if count > 1)
    number_of = {text: number for number, text in enumerate(repeated, 1)}
    return np.array([number_of.get(text, 0) for text in texts], dtype=np.int64)


def pair_labels(captions: npt.NDArray[np.int64], pictures: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The labels of pairs, (n,): the number that rows of one caption share, and that of one picture, in one."""
    return captions + pictures * _OF_PICTURES


def both_numbers(labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers of captions and those of pictures, (n,) each, that labels of pairs hold."""
    pictures, captions = np.divmod(labels, _OF_PICTURES)
    return captions, pictures


def groups_to_train_on(groups: Iterable[str | None], splits: Iterable[str | None] | None) -> set[str]:
    """The groups of a file's rows that its own column of splits, where it has one, gives to the training.

    A client whose rows are all held out is nobody whom a training protects or could count on.
    """
    if splits is None:
        return {name for name in groups if name}
    return {name for name, split in zip(groups, splits, strict=True) if name and split == "train"}


def client_facts(groups: int | None, column: str | None) -> frozenset[str]:
    """The facts that the training rows are those of so many groups, named in a column; nothing where nobody counted."""
    return frozenset() if groups is None else frozenset({f"{CLIENTS}{groups}", f"{CLIENTS_BY}{column}"})


class Mapped(OnRead[Payload]):
    """A function over payloads, applied when one is read."""

    def __init__(self, payloads: Sequence[Payload], change: Callable[[Payload], Payload]) -> None:
        self.payloads = payloads
        self._change = change

    def __len__(self) -> int:
        return len(self.payloads)

    def read(self, index: int) -> Payload:
        """Read and change."""
        return self._change(self.payloads[index])


class Taken(OnRead[Payload]):
    """Some payloads of another sequence, by number."""

    def __init__(self, payloads: Sequence[Payload], numbers: npt.NDArray[np.int64]) -> None:
        self.payloads = payloads
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, index: int) -> Payload:
        """Read through the number."""
        return self.payloads[int(self._numbers[index])]


@dataclass(frozen=True)
class Rows:
    """n rows. `ids`: content hashes, `labels`: (n,) int64 class indices (without classes 0, but for pairs `pair_labels`
    of the numbers from 1 on that equal captions and equal pictures share), `splits`: (n,) of "train", "valid", "test",
    or "" where none is given yet, `groups`: (n,) with "" where a row has none, or None, `shards`: (n,) int64, the unit
    of storage that each payload is read with. `label_names`: by class index, () where nobody said. `chat`: payloads are
    conversations, a list of messages as JSON text. `pictures`: (n,), the content hash of each pair's picture, all rows
    of which a split keeps together; None once they are split, and where no file tells them.
    """

    payloads: Sequence[Payload]
    ids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_] | None
    shards: npt.NDArray[np.int64]
    label_names: tuple[str, ...] = ()
    chat: bool = False
    pictures: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, change: Callable[[Payload], Payload]) -> "Rows":
        """The same rows, each payload changed when it is read; of a conversation, the content of each message."""
        return replace(self, payloads=Mapped(self.payloads, each_message(change) if self.chat else change))

    def take(self, numbers: npt.NDArray[np.int64]) -> "Rows":
        """The rows of these numbers, in this order."""
        return Rows(
            payloads=Taken(self.payloads, numbers),
            ids=self.ids[numbers],
            labels=self.labels[numbers],
            splits=self.splits[numbers],
            groups=None if self.groups is None else self.groups[numbers],
            shards=self.shards[numbers],
            label_names=self.label_names,
            chat=self.chat,
            pictures=None if self.pictures is None else self.pictures[numbers],
        )

    def where(self, split: str) -> "Rows":
        """The rows of one split."""
        return self.take(np.flatnonzero(self.splits == split))

    @property
    def contents(self) -> npt.NDArray[np.str_]:
        """What of each row a split may not take apart, (n,): its picture where several captions may have one."""
        return self.ids if self.pictures is None else self.pictures

    def assigned(self, splits: npt.NDArray[np.str_]) -> "Rows":
        """The same rows with other splits."""
        return replace(self, splits=splits)

    def loaded(self) -> "Rows":
        """The same rows with every payload read into memory, in order of storage."""
        return replace(self, payloads=list(self.payloads))


def nominal_rows(splits: npt.NDArray[np.str_]) -> int:
    """The public number of training rows that a private plan rests on: what the data names, or eight tenths of all."""
    return int((splits == "train").sum()) if (splits != "").any() else round(0.8 * len(splits))
