"""One canonical form for look-alike and invisible characters (instruction 34). Knows neither instructions nor files.

The training and every later reader of the artifact call this same function.
"""

import re
import unicodedata

VERSION = "1"
"""Raised with the table of look-alikes: another version gives another form."""

# Letters of other scripts that look like a Latin letter in the common fonts: Unicode's confusables, single letters.
_CYRILLIC = dict(zip("АВЕЅІЈКМНОРСТУХаеѕіјорсухһԁԛԝк", "ABESIJKMHOPCTYXaesijopcyxhdqwk", strict=True))
_GREEK = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧανιορυκτχγ", "ABEZHIKMNOPTYXaviopuktxy", strict=True))
_ARMENIAN = dict(zip("սօոցհ", "uongh", strict=True))
LOOK_ALIKES = {**_CYRILLIC, **_GREEK, **_ARMENIAN}

_WORD = re.compile(r"\w+")
_MAX_PASSES = 8


def canonical_text(text: str, *, version: str = VERSION) -> str:
    """Compatibility form, invisible format characters gone, look-alike letters mapped; idempotent.

    ASCII text is unchanged. Letters are mapped only inside a word that has Latin letters too: a word that is Greek or
    Cyrillic throughout is left alone, since it may well be Greek or Cyrillic. Compatibility comes first, because it
    turns full-width and mathematical letters into plain ones and so can make a word mixed.

    Raises:
        KeyError: for another version than this one.
    """
    if version != VERSION:
        raise KeyError(version)
    for _ in range(1 if text.isascii() else _MAX_PASSES):
        before = text
        text = unicodedata.normalize("NFKC", text)
        text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
        text = _WORD.sub(lambda word: _mapped(word.group()), text)
        if text == before:
            break
    return text


def _mapped(word: str) -> str:
    if word.isascii() or not any(is_latin(sign) for sign in word):
        return word
    return "".join(LOOK_ALIKES.get(sign, sign) for sign in word)


def is_latin(sign: str) -> bool:
    """Whether a character is a Latin letter."""
    return (sign.isascii() and sign.isalpha()) or "LATIN " in unicodedata.name(sign, "")


def in_other_script(word: str) -> bool:
    """Whether a word has letters and none of them is Latin."""
    letters = [sign for sign in word if sign.isalpha()]
    return bool(letters) and not any(is_latin(sign) for sign in letters)
