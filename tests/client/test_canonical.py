"""The canonical form: what it undoes, what it leaves, and that it stands still."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.canonical import LOOK_ALIKES, VERSION, canonical_text, in_other_script

ZERO_WIDTH = ["\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e"]


@given(st.text(max_size=40))
def test_it_is_idempotent(text: str) -> None:
    once = canonical_text(text)
    assert canonical_text(once) == once


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=40))
def test_ascii_is_unchanged(text: str) -> None:
    assert canonical_text(text) == text


@pytest.mark.parametrize("sign", ZERO_WIDTH)
def test_invisible_characters_go(sign: str) -> None:
    assert canonical_text(f"pay{sign}pal") == "paypal"


@pytest.mark.parametrize(("other", "latin"), LOOK_ALIKES.items())
def test_a_look_alike_inside_a_latin_word_is_undone(other: str, latin: str) -> None:
    assert canonical_text(f"zz{other}zz") == f"zz{latin}zz"


def test_words_of_another_script_stay() -> None:
    for text in ("Москва", "соса", "Αθήνα και", "привет мир"):
        assert canonical_text(text) == text
        assert all(map(in_other_script, text.split()))
    assert not in_other_script("42")
    assert not in_other_script("раypаl")


def test_full_width_letters_become_plain_before_words_are_looked_at() -> None:
    assert canonical_text("ｐаypal") == "paypal"


def test_another_version_is_refused() -> None:
    assert canonical_text("раypal", version=VERSION) == "paypal"
    with pytest.raises(KeyError):
        canonical_text("a", version="0")
