"""Attacks on the rows that a run is judged by, against the file that ships. Knows no instruction.

What is told is what the file itself answers to the changed row: a search may use the eager model's gradients, but a
change counts only where the file, given it as a stranger would give it, answers wrongly. Rows that the file gets wrong
anyway are lost without an attack.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from client.artifact import Package
from engine.attacks import Ball, apgd, ascent, pgd, pixel_scale, square, still
from engine.evaluate import Labels
from engine.instruction import Exported
from engine.ports import Answers, Payload, device_of
from engine.quantized import in_float
from engine.randomness import derive, generator
from engine.run import Run
from engine.word_attacks import Attacked, Budget, Candidates, Neighbours, attack_text, look_alikes, swapped_letters

IMAGE_ATTACKS = ("pgd20", "apgd_ce", "square")
TEXT_ATTACKS = ("word_substitution", "character_swap", "homoglyph")
ATTACKS: Mapping[str, tuple[str, ...]] = {"image_classification": IMAGE_ATTACKS, "text_classification": TEXT_ATTACKS}
"""The attacks that serve each task; the first is the one that a detector is judged by."""

_BATCH = 64
_MASKS = ("[MASK]", "<mask>", "[UNK]", "<unk>")
Pixels = npt.NDArray[np.uint8]


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
        drawn = _drawn(run, exported, setting)
        if run.spec.task == "image_classification":
            found = {name: _attacked_pictures(run, exported, eager, name, setting, drawn) for name in missing}
        else:
            found = _attacked_texts(run, exported, eager, missing, setting, drawn)
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


def _drawn(run: Run, exported: Exported, setting: Setting) -> _Drawn:
    order = generator(setting.seed, "attacked rows").permutation(len(run.data.test))
    rows = np.sort(order[: setting.rows]).astype(np.int64)
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


# Pictures.


def _attacked_pictures(
    run: Run,
    exported: Exported,
    eager: nn.Module,
    attack: str,
    setting: Setting,
    drawn: _Drawn,
) -> Outcome:
    found: list[Payload | None] = [None] * len(drawn.rows)
    held = drawn.right.copy()
    queries: list[int] = []
    places = np.flatnonzero(drawn.right)
    for start in range(0, len(places), _BATCH):
        part = places[start : start + _BATCH]
        originals = [run.data.examples["test"][int(row)] for row in drawn.rows[part]]
        with in_float(eager), still(eager):
            pictures = _searched(run, eager, attack, setting, originals, drawn.labels[part])
        payloads = [png(one) for one in pictures]
        held[part] = _answered(exported, payloads) == drawn.labels[part]
        queries += [_queries(attack, setting)] * len(part)
        for place, payload in zip(part, payloads, strict=True):
            found[place] = None if held[place] else payload
    return Outcome(attack, drawn.rows, drawn.right, held, found, [None] * len(drawn.rows), queries)


def _queries(attack: str, setting: Setting) -> int:
    return setting.max_queries if attack == "square" else _STEPS[attack] + 1


_STEPS = {"pgd20": 20, "apgd_ce": 50}


def _searched(
    run: Run, eager: nn.Module, attack: str, setting: Setting, originals: Sequence[Pixels], labels: Labels
) -> list[Pixels]:
    """The worst pictures that a search finds, on the grid of 8 bits that a file can hold."""
    device = device_of(eager)
    mean, std = pixel_scale(run.task)
    ball = Ball.of(mean, std, setting.epsilon, device)
    batch = {name: one.to(device) for name, one in run.task.collate(originals, labels.tolist()).items()}
    origin, losses = batch["pixel_values"], _losses_of(run, eager, batch)
    draws = torch.Generator().manual_seed(derive(setting.seed, attack))
    if attack != "square" and not _has_gradient(losses, origin):
        run.warn("no_gradient", f"the model gives no gradient for {attack}: it was attacked without (square) instead")
        attack = "square"
    if attack == "square":
        worst = square(losses, origin, ball, queries=setting.max_queries, generator=draws)
    elif attack == "apgd_ce":
        worst = apgd(losses, origin, ball, steps=_STEPS[attack], generator=draws)
    else:
        worst = pgd(losses, origin, ball, steps=_STEPS[attack], step=2.5 / _STEPS[attack], generator=draws)
    spread = torch.tensor(std, device=device).view(-1, 1, 1)
    change = ((worst - origin) * spread * 255).cpu().numpy()
    return [on_grid(one, change[number], setting.epsilon) for number, one in enumerate(originals)]


def _losses_of(run: Run, eager: nn.Module, batch: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    def losses(pixels: Tensor) -> Tensor:
        changed = {**batch, "pixel_values": pixels}
        return run.task.losses(run.task.forward(eager, changed), changed)

    return losses


def _has_gradient(losses: Callable[[Tensor], Tensor], origin: Tensor) -> bool:
    """Whether most pictures have a gradient at all; a loss that is detached has none."""
    try:
        gradient = ascent(losses, origin)[1]
    except RuntimeError:  # autograd's word for a graph that does not reach the picture
        return False
    return bool((gradient.flatten(1).abs().amax(dim=1) > 0).float().mean() > 0.5)


def on_grid(original: Pixels, change: npt.NDArray[np.floating], epsilon: float) -> Pixels:
    """The original with a change in levels of 8 bits rounded, and no level further away than `epsilon`."""
    most = np.floor(epsilon * 255 + 1e-6)
    levels = original.astype(np.float64) + np.clip(np.rint(change), -most, most)
    found: Pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return found


def png(pixels: Pixels) -> bytes:
    """(channels, height, width) uint8 as a file, without loss."""
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(stream, format="PNG")
    return stream.getvalue()
