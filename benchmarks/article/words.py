"""Instructions 15 and 33 on sentences: variants of training texts, and scores of inputs that were tampered with."""

import json
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from benchmarks.article.embedded import DATA, Floats, Texts, meaning, texts_of
from benchmarks.article.section import Figures, NotAtHand, Section
from benchmarks.texts import ROOT
from client.conformal import Calibration
from client.ngrams import NGrams
from engine.conformal import auroc
from engine.events import Listed
from engine.instructions.augmentation.i15_contextual_augmentation import ContextualAugmentation
from engine.models import find
from engine.plan import Plan
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec

_FEW = 200
_POOL, _TEST = 2000, 500
_RATE = 0.05
_CUT = 37  # words, where the attackers cut their texts
_FILTERS: dict[str, dict[str, Any]] = {
    "ours, both filters off": {"min_similarity": 0.0, "label_filter": "none"},
    "ours": {},
}
PAIRS = DATA / "adversarial" / "adv_ag_news" / "pairs.jsonl"


def augmenting(seed: int, quick: bool) -> Figures:
    """15: a classifier of few texts without and with variants, and whether variants keep their label."""
    pool, test = texts_of("sst2", "train", 200 if quick else _POOL), texts_of("sst2", "test", 50 if quick else _TEST)
    few = 60 if quick else _FEW
    order = np.random.default_rng(seed).permutation(len(pool.texts))
    chosen, others = order[:few], order[few:]
    judge = LogisticRegression(C=10.0, max_iter=1000).fit(pool.embedded[others], pool.labels[others])
    plain, labels = pool.embedded[chosen], pool.labels[chosen]
    found: dict[str, dict[str, float | None]] = {
        "no variants": _augmented(plain, labels, 0, test, judge),
        "each text twice": _augmented(np.concatenate([plain, plain]), np.tile(labels, 2), 0, test, judge),
    }
    for name, choice in _FILTERS.items():
        rows = _varied(pool, chosen, choice, seed)
        embedded = np.concatenate([plain, meaning().of([str(one) for one in rows.payloads[few:]])])
        found[name] = _augmented(embedded, rows.labels, len(rows) - few, test, judge)
    return found


def _augmented(
    embedded: Floats, labels: npt.NDArray[np.int64], variants: int, test: Texts, judge: Any
) -> dict[str, float | None]:
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit(embedded, labels)
    kept = slice(len(labels) - variants, None)
    agrees = float((judge.predict(embedded[kept]) == labels[kept]).mean()) if variants else None
    return {
        "accuracy": float((fitted.predict(test.embedded) == test.labels).mean()),
        "variants": float(variants),
        "variants whose label a judge of other texts confirms": agrees,
    }


def _varied(pool: Texts, chosen: npt.NDArray[np.int64], choice: dict[str, Any], seed: int) -> Rows:
    """The chosen texts with their variants behind them, by the instruction itself."""
    body = {
        "task": "text_classification",
        "dataset": "sst2",
        "instructions": [{"name": "contextual_augmentation", **choice}],
        "training": {"seed": seed},
    }
    spec = Spec.model_validate(body)
    run = Run(spec, Plan.of(spec, {"pretrained"}), Listed())
    rows = Rows(
        payloads=[pool.texts[int(i)] for i in chosen],
        ids=np.array([f"row-{int(i):06d}" for i in chosen]),
        labels=pool.labels[chosen],
        splits=np.full(len(chosen), "train"),
        groups=None,
        shards=np.zeros(len(chosen), dtype=np.int64),
    )
    (one,) = run.plan.instructions
    assert isinstance(one, ContextualAugmentation)
    return one.training_records(run, rows)


class _Reader:
    """MiniLM with its attention weights, one text at a time."""

    def __init__(self) -> None:
        folder = find("minilm-l6", None).folder
        assert folder is not None, "a packaged model has a folder"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    def ids(self, text: str) -> npt.NDArray[np.int64]:
        """Token ids with the special ones."""
        return np.array(self.tokenizer(text, truncation=True)["input_ids"], dtype=np.int64)

    @torch.no_grad()
    def article_score(self, text: str) -> float:
        """.7 of the mean entropy and .3 of the mean spread over heads, of the last layer's weights."""
        ids = torch.from_numpy(self.ids(text))[None]
        weights = self._model(input_ids=ids, output_attentions=True).attentions[-1]
        entropy = -(weights * (weights + 1e-12).log()).sum(dim=-1)
        return float(0.7 * entropy.mean() + 0.3 * weights.std(dim=1).mean())


@cache
def _reader() -> _Reader:
    return _Reader()


@cache
def _article_scores(texts: tuple[str, ...]) -> npt.NDArray[np.float32]:
    return np.array([_reader().article_score(text) for text in texts], dtype=np.float32)


@cache
def _attacks(count: int) -> tuple[Texts, Texts]:
    """Texts and what an attack on another model made of them."""
    if not PAIRS.is_file():
        raise NotAtHand(f"adv_ag_news is missing: pairs of texts belong at {PAIRS.relative_to(ROOT.parent)}")
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()[:count]]
    labels = np.array([row["label"] for row in rows], dtype=np.int64)
    sides = [[row[key] for row in rows] for key in ("original", "perturbed")]
    return Texts(sides[0], labels, meaning().of(sides[0])), Texts(sides[1], labels, meaning().of(sides[1]))


def detecting(seed: int, quick: bool) -> Figures:
    """33: attacks that fool a head on frozen MiniLM, beside clean texts."""
    pool = texts_of("ag_news", "train", 100 if quick else 1000, _CUT)
    clean = texts_of("ag_news", "valid", 60 if quick else 400, _CUT)
    originals, perturbed = _attacks(150 if quick else 500)
    drawn = np.random.default_rng(seed)
    chosen = drawn.permutation(len(pool.texts))[: len(pool.texts) * 4 // 5]
    held = drawn.permutation(len(clean.texts))[: len(clean.texts) * 3 // 4]
    model = LogisticRegression(C=10.0, max_iter=1000).fit(pool.embedded[chosen], pool.labels[chosen])
    was, now = model.predict(originals.embedded), model.predict(perturbed.embedded)
    fooling = np.flatnonzero((was == originals.labels) & (now != originals.labels))
    vocabulary = _reader().tokenizer.vocab_size
    ngrams = NGrams.fit([_reader().ids(pool.texts[int(i)]) for i in chosen], vocabulary)
    sides = (clean, originals, perturbed)
    article = [_article_scores(tuple(one.texts))[:, None] for one in sides]
    softmax = [-model.predict_proba(one.embedded).max(axis=1).astype(np.float32)[:, None] for one in sides]
    surprise = [
        np.array([ngrams.surprise(_reader().ids(text)) for text in one.texts], dtype=np.float32)[:, None]
        for one in sides
    ]
    both = [np.concatenate(pair, axis=1) for pair in zip(softmax, surprise, strict=True)]
    lengths = np.array([len(_reader().ids(text)) for text in originals.texts])
    return {
        "the article's score": _detected(article, held, fooling, lengths),
        "unsure answers alone": _detected(softmax, held, fooling, lengths),
        "ours, the signals of one forward pass": _detected(both, held, fooling, lengths),
    }


def _detected(
    raw: list[npt.NDArray[np.float32]],
    held: npt.NDArray[np.int64],
    fooling: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> dict[str, float | None]:
    """Figures with a threshold that clean validation rows have set; `raw`: of those, of originals, of attacks."""
    calibration = Calibration(tuple(str(i) for i in range(raw[0].shape[1])), raw[0][held])
    honest, attacks = calibration.scores(raw[1]), calibration.scores(raw[2][fooling])
    threshold = calibration.threshold(_RATE)
    return {
        "AUROC": auroc(attacks, honest),
        "attacks flagged at 5 %": float((attacks > threshold).mean()),
        "honest texts flagged": float((honest > threshold).mean()),
        "attacks": float(len(fooling)),
        "rank correlation with length": float(spearmanr(honest, lengths).statistic),
    }


SECTIONS = (
    Section(
        15,
        "Contextual augmentation",
        "replaces one word of a text by what BERT finds likely there, and claims 17 % more robustness on legal"
        " documents.",
        (
            "The word that is to be replaced is never hidden from the model, so the best guess is mostly the word"
            " itself.",
            "The original word stays among the five candidates, so some variants equal their text.",
            "A candidate goes from id to text and back, and only the first id is kept: parts of words come back as"
            " `#`.",
            "Parts of words are replaced like words, and so are negations, numbers and names.",
            "Nothing checks that the label survives: good and bad fit the same place.",
            "The whole text is rewritten by decoding, so variants differ in style everywhere.",
            "Model and tokenizer are loaded for every text, and a text of more than 512 tokens fails.",
            "`random` and `torch` are not imported and nothing is seeded; the 17 % names no data and no baseline.",
        ),
        "hides each chosen word, never proposes it again, replaces whole words in place, and keeps a variant only if"
        " its meaning stays close and a classifier that has not seen the text still gives the label.",
        f"{_FEW} texts of sst2, a linear classifier on frozen MiniLM, {_TEST} test rows; the judge is the same kind of"
        f" classifier fitted on {_POOL - _FEW:,} other texts. Proposals are nearest words, since no masked model is"
        " packaged; for the same reason the article's own proposals were not measured here.",
        "Where the intervals overlap no gain in accuracy was shown; the filters show in the last column.",
        augmenting,
    ),
    Section(
        33,
        "Detection of adversarial inputs",
        "flags inputs by the entropy of attention weights and their spread over heads, and claims an F1 of .89, 23 %"
        " above a detector by L2 distance.",
        (
            "Means run over the batch: there is one verdict for all inputs, and it changes with the neighbours.",
            "Rows of padding are averaged in.",
            "Entropy grows with the length of a text, so long texts look attacked.",
            "The spread is over the heads of one layer, not across layers, and high spread is called consistency.",
            "The two terms differ so much in size that the weights .7 and .3 mean nothing.",
            "The threshold is a name that nothing defines, and nothing says at which rate of false alarms it is set.",
            "That an attack raises entropy is assumed; measured, the score lies on both sides of chance.",
            "Fused attention returns no weights, so the code reads an empty tuple.",
            "The F1 comes without attack, prevalence or false alarms.",
        ),
        "ranks how unsure the answer is, how unusual the tokens are and how the answer reacts to hidden words among"
        " clean validation rows, so the rate of false alarms is the one that was asked for.",
        "adv_ag_news: attacks on another model that also fool a linear head on frozen MiniLM (ag_news, lower case, 37"
        " words), beside the originals. The article's score read one text at a time, which mends its batch. Of ours"
        " only the signals that need one forward pass: the reaction to hidden words was not measured here, see"
        " `benchmarks/detection.py`.",
        "An AUROC of .5 is chance.",
        detecting,
    ),
)
