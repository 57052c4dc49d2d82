"""Attacks on the rows that a run is judged by, against the file that ships. Knows no instruction.

What is told is what the file itself answers to the changed row: a search may use the eager model's gradients, but a
change counts only where the file, given it as a stranger would give it, answers wrongly. Rows that the file gets wrong
anyway are lost without an attack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client.artifact import Package
from engine.evaluate import Labels
from engine.instruction import Exported
from engine.picture_attacks import JUDGES, Judge, Room, attacked
from engine.ports import Answers, Payload
from engine.randomness import generator
from engine.run import Run
from engine.word_attacks import Attacked, Budget, Candidates, Neighbours, attack_text, look_alikes, swapped_letters

IMAGE_ATTACKS = ("pgd20", "apgd_ce", "square")
TEXT_ATTACKS = ("word_substitution", "character_swap", "homoglyph")
ATTACKS: Mapping[str, tuple[str, ...]] = {
    "image_classification": IMAGE_ATTACKS,
    "text_classification": TEXT_ATTACKS,
    "text_image_pairs": IMAGE_ATTACKS,
}
"""The attacks that serve each task; the first is the one that a detector is judged by."""

_BATCH = 64
_MASKS = ("[MASK]", "<mask>", "[UNK]", "<unk>")


@dataclass(frozen=True)
class Setting:
    """How hard rows are attacked. `confidence`: a text's search goes on until the wrong answer has it; 0: any."""

    rows: int = 200
    epsilon: float = 8 / 255
    max_words: float = 0.3
    max_queries: int = 500
    confidence: float = 0.0
    seed: int = 0


@dataclass
class Outcome:
    """What one attack did to n rows.

    Attributes:
        rows: their numbers among the test rows, (n,).
        right: whether the file answers the untouched row rightly, (n,).
        held: whether it still does after the attack; never where it did not before, (n,).
        found: for each row the changed payload that the file answers wrongly, or None.
        confident: the same where the wrong answer has the confidence that was asked for, or None.
        queries: what was asked of a model for each row that was attacked.
        changed: share of the words that were changed, of the rows that fell; empty for pictures.
    """

    attack: str
    rows: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]
    found: list[Payload | None]
    confident: list[Payload | None]
    queries: list[int] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)

    @property
    def fooling(self) -> list[Payload]:
        """The changed payloads that fool the file."""
        return [one for one in self.found if one is not None]


def attack_rows(
    run: Run, exported: Exported, eager: nn.Module, attacks: Sequence[str], setting: Setting
) -> dict[str, Outcome]:
    """Attack a seeded draw of the test rows with each attack in turn; made before with the same setting, not again."""
    kept: dict[tuple[str, Setting], Outcome] = run.state("attacks").setdefault("made", {})
    missing = [name for name in attacks if (name, setting) not in kept]
    if missing:
        rows = drawn_rows(run, setting)
        if run.spec.task in JUDGES:
            judge = JUDGES[run.spec.task](run, exported, eager)
            found = {name: _attacked_pictures(run, eager, judge, name, setting, rows) for name in missing}
        else:
            found = _attacked_texts(run, exported, eager, missing, setting, _drawn(run, exported, rows))
        kept.update({(name, setting): one for name, one in found.items()})
    return {name: kept[name, setting] for name in attacks}


@dataclass(frozen=True)
class _Drawn:
    """Numbers of test rows, their labels, and whether the file answers them rightly; (n,) each."""

    rows: npt.NDArray[np.int64]
    labels: Labels
    right: npt.NDArray[np.bool_]


def as_package(exported: Exported) -> Package:
    """The file that ships, as its users read it, with the threads of this run: many questions are asked of it."""
    return Package(exported.folder, threads=torch.get_num_threads())


def drawn_rows(run: Run, setting: Setting) -> npt.NDArray[np.int64]:
    """Numbers of the test rows that are attacked, in order."""
    order = generator(setting.seed, "attacked rows").permutation(len(run.data.test))
    return np.sort(order[: setting.rows]).astype(np.int64)


def _drawn(run: Run, exported: Exported, rows: npt.NDArray[np.int64]) -> _Drawn:
    labels = run.data.test.labels[rows]
    answered = _answered(exported, [run.data.test.payloads[int(row)] for row in rows])
    return _Drawn(rows, labels, answered == labels)


def _answered(exported: Exported, payloads: Sequence[Payload]) -> Labels:
    """The winning class of each payload, read alone."""
    found: Labels = exported.answers(payloads, batch_size=1).argmax(axis=1).astype(np.int64)
    return found


# Texts.


class _Remembered:
    """Asks the file, and asks nothing twice: the attacks on one text begin with the same questions."""

    def __init__(self, exported: Exported) -> None:
        self._exported = exported
        self._known: dict[str, npt.NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> Answers:
        new = sorted({text for text in texts if text not in self._known}, key=len)
        if new:
            self._known.update(zip(new, self._exported.answers(new, batch_size=_BATCH), strict=True))
        return np.stack([self._known[text] for text in texts])


def _attacked_texts(
    run: Run,
    exported: Exported,
    eager: nn.Module,
    attacks: Sequence[str],
    setting: Setting,
    drawn: _Drawn,
) -> dict[str, Outcome]:
    budget = Budget(setting.max_words, setting.max_queries, setting.confidence)
    candidates, mask = _candidates(run, eager, attacks), _mask(run)
    found: dict[str, list[Attacked | None]] = {name: [] for name in attacks}
    for row, label, is_right in zip(drawn.rows, drawn.labels, drawn.right, strict=True):
        ask = _Remembered(exported)
        text = str(run.data.test.payloads[int(row)])
        for name in attacks:
            one = attack_text(ask, text, int(label), candidates[name], budget, mask) if is_right else None
            found[name].append(one)
    return {name: _outcome(name, exported, drawn, ones) for name, ones in found.items()}


def _outcome(name: str, exported: Exported, drawn: _Drawn, ones: Sequence[Attacked | None]) -> Outcome:
    """Replay every found text alone; one that the file then answers rightly has not fooled it."""
    found: list[Payload | None] = [None if one is None else one.flipped for one in ones]
    confident: list[Payload | None] = [None if one is None else one.confident for one in ones]
    held = drawn.right.copy()
    for number, text in enumerate(found):
        if text is not None:
            held[number] = _answered(exported, [text])[0] == drawn.labels[number]
            found[number] = None if held[number] else text
    fallen = [one for number, one in enumerate(ones) if one is not None and not held[number]]
    return Outcome(
        attack=name,
        rows=drawn.rows,
        right=drawn.right,
        held=held,
        found=found,
        confident=[one if found[number] is not None else None for number, one in enumerate(confident)],
        queries=[one.queries for one in ones if one is not None],
        changed=[one.changed / max(1, one.words) for one in fallen],
    )


def _candidates(run: Run, eager: nn.Module, attacks: Sequence[str]) -> dict[str, Candidates]:
    found: dict[str, Candidates] = {"character_swap": swapped_letters, "homoglyph": look_alikes}
    if "word_substitution" in attacks:
        found["word_substitution"] = neighbours_of(run, eager)
    return found


def neighbours_of(run: Run, eager: nn.Module) -> Neighbours:
    """Neighbouring words by the model's own embeddings of its input."""
    embeddings = eager.get_input_embeddings()  # type: ignore[operator]  # a method of every transformers model
    return Neighbours(run.task.tokenizer, embeddings.weight)  # type: ignore[attr-defined]  # of every task of texts


def _mask(run: Run) -> str:
    vocabulary = run.task.tokenizer.get_vocab()  # type: ignore[attr-defined]  # of every task of texts
    return next((name for name in _MASKS if name in vocabulary), "")


def _attacked_pictures(
    run: Run, eager: nn.Module, judge: Judge, attack: str, setting: Setting, rows: npt.NDArray[np.int64]
) -> Outcome:
    right = judge.right(rows, [run.data.test.payloads[int(row)] for row in rows])
    room = Room(setting.epsilon, setting.max_queries, setting.seed)
    places = np.flatnonzero(right)
    fooling, queries = attacked(run, eager, judge, attack, room, rows[places])
    found: list[Payload | None] = [None] * len(rows)
    for place, one in zip(places, fooling, strict=True):
        found[int(place)] = one
    held = right & np.array([one is None for one in found])
    return Outcome(attack, rows, right, held, found, [None] * len(rows), queries)
