"""The search for texts, against a model that counts words, where the best change can be worked out by hand."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from client.canonical import canonical_text
from engine.word_attacks import STOP_WORDS, Budget, Neighbours, attack_text, look_alikes, swapped_letters

WEIGHTS = {"awful": 3.0, "bad": 2.0, "poor": 1.5, "weak": 1.0, "good": -2.0, "fine": -1.0, "great": -3.0}
OPTIONS = {"awful": ["great", "fine"], "bad": ["good", "poor"], "poor": ["weak"], "weak": []}


class Counting:
    """Logits [sum of weights, 0]: the first class wins while the sum is above nought. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked += texts
        return np.array([[sum(WEIGHTS.get(word, 0.0) for word in text.split()), 0.0] for text in texts], np.float32)


def options(word: str) -> list[str]:
    return OPTIONS.get(word, [])


TEXT = "the awful bad poor weak thing that it was today again for us all of it"


def test_the_weightiest_word_goes_first_and_to_the_worst_option() -> None:
    found = attack_text(Counting(), TEXT, 0, options, Budget(max_words=1.0), "[MASK]")
    assert found.flipped == TEXT.replace("awful", "great").replace("bad", "good")
    assert found.changed == 2
    assert found.words == len(TEXT.split())


def test_it_stops_at_the_first_wrong_answer_and_goes_on_where_it_must_be_sure() -> None:
    sure = attack_text(Counting(), TEXT, 0, options, Budget(max_words=1.0, confidence=0.9), "[MASK]")
    assert sure.flipped == TEXT.replace("awful", "great").replace("bad", "good")
    assert sure.changed == 2
    assert sure.confident is not None
    weight = sum(WEIGHTS.get(word, 0.0) for word in sure.confident.split())
    assert 1 / (1 + np.exp(weight)) >= 0.9
    never = attack_text(Counting(), TEXT, 0, options, Budget(max_words=1.0, confidence=0.9999), "[MASK]")
    assert never.flipped is not None
    assert never.confident is None


def test_the_budget_of_words_and_of_questions_holds() -> None:
    few = attack_text(Counting(), TEXT, 0, options, Budget(max_words=1 / len(TEXT.split())), "[MASK]")
    assert few.flipped is None
    assert few.changed == 1
    for most in (1, 5, 9, 12, 15):
        ask = Counting()
        found = attack_text(ask, TEXT, 0, options, Budget(max_words=1.0, max_queries=most), "[MASK]")
        assert len(ask.asked) == found.queries <= most


def test_stop_words_and_numbers_are_left_alone() -> None:
    seen: list[str] = []

    def remember(word: str) -> list[str]:
        seen.append(word)
        return [word + "x"]

    attack_text(Counting(), "the 42 awful year 1999 of it", 0, remember, Budget(max_words=1.0), "[MASK]")
    assert set(seen) <= {"awful", "year"}
    assert not STOP_WORDS & set(seen)


def test_an_option_that_does_not_help_is_not_taken() -> None:
    found = attack_text(Counting(), "weak thing", 0, lambda word: ["awful"], Budget(max_words=1.0), "[MASK]")
    assert found.flipped is None
    assert found.changed == 0


def tokenizer(words: Sequence[str]) -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def test_neighbours_are_near_whole_words_in_the_words_own_case() -> None:
    words = ["[UNK]", "red", "crimson", "blue", "##ing", "x2", "the", "scarlet"]
    table = torch.tensor(
        [[0, 0, 0], [1, 0, 0.1], [1, 0.1, 0], [-1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0.9, 0, 0.4]],
        dtype=torch.float32,
    )
    near = Neighbours(tokenizer(words), table, most=2)
    assert set(near("red")) == {"crimson", "scarlet"}
    assert near("Red")[0][0].isupper()
    assert near("RED")[0].isupper()
    assert near("unknown") == []
    assert near("the") == []
    assert "blue" not in near("red")


def test_look_alikes_are_other_characters_and_are_undone_by_the_canonical_form() -> None:
    for word in ("paypal", "Account", "hope", "coop", "a"):
        for one in look_alikes(word):
            assert one != word
            assert len(one) == len(word)
            assert canonical_text(one) == word
    assert look_alikes("paypal")
    assert look_alikes("café") == []


def test_swapped_letters_keep_the_ends() -> None:
    assert set(swapped_letters("words")) == {"wrods", "wodrs"}
    assert swapped_letters("abc") == []
    assert swapped_letters("aaaa") == []
