"""Instruction 15: only drawn places change, hidden from the proposer; what loses label or meaning is dropped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from engine.errors import InvalidData, InvalidPlan
from engine.events import Listed
from engine.instructions.augmentation import i15_contextual_augmentation as file_15
from engine.plan import Plan
from engine.ports import Pair, content_of, image_of, text_of
from engine.rows import Rows, both_numbers, equal_numbers
from engine.run import Run
from engine.spec import Spec
from engine.word_attacks import STOP_WORDS
from engine.word_proposals import MaskedModel, NearestWords, Proposals, changeable, spliced
from tests.engine.runs import tiny_run
from tests.engine.tiny import rows_of
from tests.engine.tiny_run import image_run, text_run

GOOD, BAD = ("splendid", "superb", "lovely", "charming"), ("dreadful", "awful", "dismal", "horrid")
NOUNS = ("river", "garden", "window", "station", "mountain", "kitchen")
WORDS = [*GOOD, *BAD, *NOUNS, "the", "looked", "near", "was", "not"]
CHOSEN: dict[str, Any] = {"name": "contextual_augmentation", "share": 0.3, "min_similarity": 0.0}


class TableOfWords:
    """Proposes from a fixed table, whatever the place."""

    table: ClassVar[Mapping[str, Sequence[str]]] = {noun: [other for other in NOUNS if other != noun] for noun in NOUNS}

    def propose(self, texts: Sequence[str], places: Sequence[Any], most: int) -> list[list[Proposals]]:
        return [
            [[(word, 0.0) for word in self.table.get(text[slice(*place)].lower(), ())][:most] for place in of_text]
            for text, of_text in zip(texts, places, strict=True)
        ]


class FlippedTable(TableOfWords):
    """Good words for bad ones and the other way round."""

    table: ClassVar[Mapping[str, Sequence[str]]] = {**dict.fromkeys(GOOD, BAD), **dict.fromkeys(BAD, GOOD)}


class CountedWords:
    """Sentence embeddings that count the words of each kind: a lexicon that a linear classifier reads."""

    proposer: type[TableOfWords] = TableOfWords

    def __init__(self, _: Any) -> None:
        """Nothing to load."""

    def words(self) -> TableOfWords:
        return self.proposer()

    def of(self, texts: Sequence[str]) -> Any:
        counts = [[sum(word in text.lower() for word in kind) for kind in (GOOD, BAD, NOUNS)] for text in texts]
        found = np.array(counts, np.float32) + 0.01
        return found / np.linalg.norm(found, axis=1, keepdims=True)


class Flipped(CountedWords):
    proposer = FlippedTable


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_15, "Meaning", CountedWords)


def texts(count: int = 80) -> tuple[list[str], list[int]]:
    drawn = np.random.default_rng(0)
    made, labels = [], []
    for number in range(count):
        label = number % 2
        word, noun = drawn.choice((BAD, GOOD)[label]), drawn.choice(NOUNS)
        made.append(f"The {noun} looked {word}, near No. {number}.")
        labels.append(label)
    return made, labels


def augmented(folder: Path, choice: dict[str, Any] | None = None) -> tuple[Run, Rows, list[str]]:
    """A run, its training rows, and the texts that were added."""
    made, labels = texts()
    run = tiny_run(folder, [choice or CHOSEN], rows_of(made, [text.encode() for text in made], labels))
    rows = run.data.train
    originals = set(made)
    return run, rows, [text_of(one) for one in rows.payloads if text_of(one) not in originals]


def test_variants_change_drawn_words_alone_and_keep_label_and_case(tmp_path: Path) -> None:
    run, rows, added = augmented(tmp_path)
    assert len(added) > 30
    labels = dict(zip([text_of(one) for one in rows.payloads], rows.labels.tolist(), strict=True))
    for text in added:
        (parent,) = [one for one in labels if one not in added and one.rsplit(" ", 1)[1] == text.rsplit(" ", 1)[1]]
        assert labels[text] == labels[parent]
        changed = [(a, b) for a, b in zip(parent.split(), text.split(), strict=True) if a != b]
        assert changed
        assert all(a in NOUNS and b in NOUNS for a, b in changed)
    report = run.plan.instructions[0].report(run)
    assert report["kept"] == len(added) == len(set(added))
    assert report["label_agreement"] > 0.95
    assert 0.5 < report["least_kept_share"] <= report["kept_share"]


def test_the_draw_is_keyed_by_the_row(tmp_path: Path) -> None:
    first, again = (augmented(tmp_path / name)[2] for name in "ab")
    assert first == again
    other = augmented(tmp_path / "c", {**CHOSEN, "copies": 2})[2]
    assert set(first) <= set(other)


def test_what_loses_its_label_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_15, "Meaning", Flipped)
    with pytest.raises(InvalidData, match="the filters keep 0"):
        augmented(tmp_path / "a")
    _, _, added = augmented(tmp_path / "b", {**CHOSEN, "label_filter": "none"})
    assert added, "the filter alone dropped them"


def test_a_class_of_a_single_row_is_no_fault(tmp_path: Path) -> None:
    made, labels = texts(40)
    few = [number for number in range(40) if not labels[number] or number == 1]
    rows = rows_of([made[i] for i in few], [made[i].encode() for i in few], [labels[i] for i in few])
    run = tiny_run(tmp_path, [CHOSEN], rows)
    assert run.plan.instructions[0].report(run)["least_kept_share"] == 0.0, "whoever has not seen it does not know it"


def test_a_variant_of_a_caption_stands_beside_its_picture_and_is_no_wrong_answer(tmp_path: Path) -> None:
    names = [f"the {noun} {number // 2}" for number, noun in enumerate(NOUNS * 8)]
    pairs = [Pair(name, f"picture {number}".encode()) for number, name in enumerate(names)]
    rows = rows_of(pairs, [content_of(one) for one in pairs], equal_numbers(names))
    spec = Spec.model_validate({"task": "text_image_pairs", "dataset": "rows", "instructions": [CHOSEN]})
    run = Run(spec, Plan.of(spec), Listed())
    (one,) = run.plan.on("training_records")
    found = one.training_records(run, rows)
    added = range(len(rows), len(found))
    assert len(added) > 20
    captions, pictures = both_numbers(found.labels)
    for number in added:
        variant = found.payloads[number]
        assert isinstance(variant, Pair)
        (parent,) = [place for place, pair in enumerate(pairs) if pair.image == variant.image]
        assert variant.text not in names
        assert variant.text.split()[2] == names[parent].split()[2]
        same = np.flatnonzero(captions == captions[number])
        assert captions[number] > 0
        assert set(same) >= {parent, number}
        assert {names[place] for place in same if place < len(rows)} == {names[parent]}
        assert pictures[number] == pictures[parent] > 0
        of_picture = np.flatnonzero(pictures == pictures[number]).tolist()
        assert {image_of(found.payloads[place]) for place in of_picture} == {variant.image}
    assert (captions[: len(rows)][rows.labels > 0] == rows.labels[rows.labels > 0]).all()
    assert "label_agreement" not in one.report(run)


def test_what_loses_its_meaning_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_15, "Meaning", Flipped)
    choice = {**CHOSEN, "label_filter": "none", "min_similarity": 0.95}
    with pytest.raises(InvalidData, match="the filters keep 0") as refused:
        augmented(tmp_path, choice)
    assert "min_similarity" in refused.value.remedy


def test_grammar_names_numbers_and_negations_stay() -> None:
    text = "Nobody in Paris was NOT sure of room 101, said Anna's old friend."
    words = {text[slice(*span)] for span in changeable(text)}
    assert words == {"sure", "room", "said", "old", "friend"}
    assert "not" in STOP_WORDS
    assert spliced("A red Fox", [((2, 5), "blue"), ((6, 9), "wolf")]) == "A blue Wolf"


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS, "##ing"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _bert(folder: Path, kind: Any) -> Path:
    config = BertConfig(
        vocab_size=len(WORDS) + 6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def test_a_masked_model_sees_masks_at_the_places_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposer = MaskedModel(_bert(tmp_path, BertForMaskedLM))
    seen: list[torch.Tensor] = []
    forward = BertForMaskedLM.forward

    def kept(self: Any, **fed: Any) -> Any:
        seen.append(fed["input_ids"])
        return forward(self, **fed)

    monkeypatch.setattr(BertForMaskedLM, "forward", kept)
    some = ["the river looked splendid near the garden", "the window was awful"]
    places = [[(4, 9), (17, 25)], [(4, 10)]]
    found = proposer.propose(some, places, 5)
    assert [int((row == 4).sum()) for row in seen[0]] == [2, 1]
    assert [len(one) for one in found] == [2, 1]
    for text, of_text, words in zip(some, places, found, strict=True):
        for place, proposals in zip(of_text, words, strict=True):
            assert 0 < len(proposals) <= 5
            assert text[slice(*place)] not in [word for word, _ in proposals]
            assert not any(word.startswith(("#", "[")) for word, _ in proposals)
    alone = proposer.propose(some[1:], places[1:], 5)[0][0]
    assert [word for word, _ in alone] == [word for word, _ in found[1][0]], "padding must not matter"


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no trained head"):
        MaskedModel(_bert(tmp_path, BertModel))


def test_nearest_words_never_propose_the_word_itself() -> None:
    drawn = torch.randn(len(WORDS) + 6, 8, generator=torch.Generator().manual_seed(0))
    drawn[5:9] += 5  # the good words lie together
    found = NearestWords(_tokenizer().backend_tokenizer, drawn).propose(["it was splendid"], [[(7, 15)]], 3)[0][0]
    assert {word for word, _ in found} <= set(GOOD) - {"splendid"}


def test_pictures_and_private_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan):
        image_run(tmp_path / "a", [CHOSEN])
    with pytest.raises(InvalidPlan, match=r"dp_sgd|contextual_augmentation"):
        text_run(tmp_path / "b", [CHOSEN, 37])
