"""Instruction 15. Knows texts and their labels; who proposes words stands in `engine.word_proposals`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.errors import InvalidData
from engine.instruction import Instruction
from engine.lazy import sklearn_linear_model
from engine.models import find, models_dir
from engine.ports import text_of, with_text
from engine.randomness import derive, generator
from engine.rows import Rows, both_numbers, pair_labels
from engine.run import Run
from engine.word_proposals import MaskedModel, Meaning, Proposals, Proposer, changeable, spliced

_MEANING = "minilm-l6"
_FOLDS = 3
_LEAST_KEPT = 0.05


class ContextualAugmentation(Instruction):
    """Adds variants of training texts in which a few words are replaced by others that fit, if meaning and label stay.

    Sound: a replaced word is hidden from the model that proposes, and never proposed again; words are whole, and go in
    by their place, so all else of the text stays byte for byte. Negations, numbers, words of grammar and names stay. A
    variant is kept where its sentence embedding stays close and a classifier that has not seen its parent still gives
    the label. A caption has no label: its variant stands beside the same picture, where the embedding stays close, and
    neither of the two counts as wrong for the other. Without a masked model (`generator`), proposals are nearest words
    of MiniLM's table, and context enters by the two filters alone: MiniLM has no trained head for masked words, and one
    trained on a few thousand texts knows frequencies only. The article's code never hides the word that it replaces,
    keeps the original among its candidates, replaces parts of words and negations, checks no label, rewrites the whole
    text by decoding it, and loads the model for every text.

    Refuses: a model whose head is not trained; fewer than 5 % of variants that pass; private training (37, 40), since a
    variant leaks its parent; streamed rows (3).

    Effect: on classifiers that start from a pretrained encoder no gain is shown (docs/article.md). The report has how
    many variants were made and kept, of the least kept class too, their mean similarity, and how often the label
    survived.
    """

    number = 15
    band = "augmentation"
    title = "Contextual augmentation"
    source = "article, instruction 15; Kobayashi 2018 (arXiv 1805.06201); Garg and Ramakrishnan 2020 (arXiv 2004.01970)"
    metric = "kept_share"
    tasks = frozenset({"text_classification", "text_image_pairs"})
    name: Literal["contextual_augmentation"] = "contextual_augmentation"

    generator: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="a base with a masked head; null: nearest words",
    )
    share: float = Field(default=0.15, ge=0.01, le=0.5, description="of a text's words that are replaced")
    copies: int = Field(default=1, ge=1, le=8, description="variants of each text")
    top_k: int = Field(default=10, ge=2, le=100, description="proposals that a word is drawn from")
    temperature: float = Field(default=1.0, ge=0.1, le=5, description="of the draw; low takes the likeliest")
    min_similarity: float = Field(default=0.85, ge=0, le=1, description="cosine of sentence embeddings")
    label_filter: Literal["classifier", "none"] = Field(default="classifier", description="what keeps the label")
    max_rows: int = Field(default=20_000, ge=1, le=1_000_000, description="texts that are varied, drawn by the seed")

    @property
    def provides(self) -> frozenset[str]:
        """Rows are added that others were read for."""
        return frozenset({"augmented_rows", "reads_training_rows", "couples_rows"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """Whatever cannot have rows that leak others, or that are not there yet."""
        leak = "a variant is derived from its parent, so one person would own several rows"
        return {"differential_privacy": leak, "streamed_records": "variants are made from texts in memory"}

    def training_records(self, run: Run, rows: Rows) -> Rows:
        """Append the variants that pass."""
        meaning = Meaning(find(_MEANING, models_dir()).folder)  # type: ignore[arg-type]  # a packaged model has a folder
        texts = [text_of(one) for one in rows.payloads]
        chosen = self._chosen(run, len(texts))
        parents, variants = self._variants(run, rows, texts, chosen, self._proposer(meaning))
        made = len(variants)
        if not made:
            raise InvalidData("no word of the training texts may be replaced", remedy="leave 15 out")
        embedded, changed = meaning.of(texts), meaning.of(variants)
        similarity = (embedded[parents] * changed).sum(axis=1)
        passed, state = similarity >= self.min_similarity, run.state(self.name)
        captions = run.spec.task == "text_image_pairs"
        if not captions:
            agrees = _labels_survive(embedded, rows.labels, changed, parents, run.spec.training.seed)
            state["label_agreement"] = float(agrees.mean())
            passed = passed & agrees if self.label_filter == "classifier" else passed
        kept = _new(np.flatnonzero(passed).tolist(), variants, set(texts))
        state.update(generated=made, kept=len(kept), mean_similarity=float(similarity[kept].mean()) if kept else 0.0)
        if not captions:
            state["least_kept_share"] = _least_kept(rows.labels[parents], kept)
        if len(kept) < _LEAST_KEPT * made:
            raise InvalidData(
                f"of {made} variants the filters keep {len(kept)}",
                remedy="lower contextual_augmentation.min_similarity, or leave 15 out",
            )
        rows = _alike(rows, parents[kept]) if captions else rows
        return _appended(rows, [variants[i] for i in kept], parents[kept])

    def report(self, run: Run) -> Mapping[str, float]:
        """What was made and kept."""
        state = run.state(self.name)
        return {**state, "kept_share": state["kept"] / state["generated"]} if state.get("generated") else {}

    def _proposer(self, meaning: Meaning) -> Proposer:
        if self.generator is None:
            return meaning.words()
        folder = find(self.generator, models_dir()).folder
        if folder is None:
            raise InvalidData(f"{self.generator} proposes no words", remedy="name a masked language model")
        return MaskedModel(folder)

    def _chosen(self, run: Run, count: int) -> list[int]:
        if count <= self.max_rows:
            return list(range(count))
        drawn = generator(run.spec.training.seed, self.name, "rows").choice(count, self.max_rows, replace=False)
        return sorted(drawn.tolist())

    def _variants(
        self, run: Run, rows: Rows, texts: Sequence[str], chosen: Sequence[int], proposer: Proposer
    ) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The number of each variant's parent, and the variants; every draw is keyed by the row's content."""
        parents: list[int] = []
        variants: list[str] = []
        for copy in range(self.copies):
            draws = [generator(run.spec.training.seed, self.name, str(rows.ids[i]), copy) for i in chosen]
            places = [self._places(texts[i], draw) for i, draw in zip(chosen, draws, strict=True)]
            proposed = proposer.propose([texts[i] for i in chosen], places, self.top_k)
            for i, draw, of_text, words in zip(chosen, draws, places, proposed, strict=True):
                drawn = [(place, self._drawn(some, draw)) for place, some in zip(of_text, words, strict=True) if some]
                if drawn:
                    parents.append(i)
                    variants.append(spliced(texts[i], drawn))
        return np.array(parents, dtype=np.int64), variants

    def _places(self, text: str, draw: np.random.Generator) -> list[tuple[int, int]]:
        found = changeable(text)
        count = min(len(found), max(1, round(self.share * len(text.split()))))
        return [found[int(i)] for i in sorted(draw.choice(len(found), count, replace=False))] if found else []

    def _drawn(self, proposals: Proposals, draw: np.random.Generator) -> str:
        scores = np.array([score for _, score in proposals]) / self.temperature
        powers = np.exp(scores - scores.max())
        return proposals[int(draw.choice(len(proposals), p=powers / powers.sum()))][0]


def _labels_survive(
    embedded: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    changed: npt.NDArray[np.float32],
    parents: npt.NDArray[np.int64],
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Whether a classifier that was fitted without a variant's parent gives the variant its label, (variants,).

    Where the rows that it is fitted on are of one class, it gives that one to all.
    """
    fold = np.random.default_rng(derive(seed, "folds")).permutation(len(labels)) % _FOLDS
    survives = np.zeros(len(parents), dtype=bool)
    for held_out in range(_FOLDS):
        seen, mine = fold != held_out, fold[parents] == held_out
        if not mine.any():
            continue
        answers = np.unique(labels[seen])
        if len(answers) > 1:
            plain = sklearn_linear_model().LogisticRegression(C=10.0, max_iter=1000)
            answers = plain.fit(embedded[seen], labels[seen]).predict(changed[mine])
        survives[mine] = answers == labels[parents[mine]]
    return survives


def _new(numbers: Sequence[int], variants: Sequence[str], known: set[str]) -> list[int]:
    """Those whose text is neither known nor another variant's."""
    kept = []
    for number in numbers:
        if variants[number] not in known:
            known.add(variants[number])
            kept.append(number)
    return kept


def _least_kept(classes: npt.NDArray[np.int64], kept: Sequence[int]) -> float:
    """The smallest share of a class's variants that were kept."""
    made, left = np.bincount(classes), np.bincount(classes[list(kept)], minlength=int(classes.max()) + 1)
    return float((left[made > 0] / made[made > 0]).min())


def _alike(rows: Rows, parents: npt.NDArray[np.int64]) -> Rows:
    """The pairs, those that get a variant with numbers of their own where no other row has their caption or picture."""
    captions, pictures = both_numbers(rows.labels)
    for numbers in (captions, pictures):
        alone = np.unique(parents[numbers[parents] == 0])
        numbers[alone] = int(numbers.max()) + 1 + np.arange(len(alone))
    return replace(rows, labels=pair_labels(captions, pictures))


def _appended(rows: Rows, variants: Sequence[str], parents: npt.NDArray[np.int64]) -> Rows:
    """The rows with variants behind them, each with its parent's label, picture, group and shard."""
    added = rows.take(parents)
    ids = [
        hashlib.sha256(f"{parent}/{text}".encode()).hexdigest()
        for parent, text in zip(added.ids, variants, strict=True)
    ]
    groups = None if rows.groups is None or added.groups is None else np.concatenate([rows.groups, added.groups])
    return replace(
        rows,
        payloads=[*rows.payloads, *(with_text(*one) for one in zip(added.payloads, variants, strict=True))],
        ids=np.concatenate([rows.ids, np.array(ids, dtype=rows.ids.dtype)]),
        labels=np.concatenate([rows.labels, added.labels]),
        splits=np.concatenate([rows.splits, added.splits]),
        groups=groups,
        shards=np.concatenate([rows.shards, added.shards]),
    )
