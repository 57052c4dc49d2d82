"""Text normalisation against its laws (idempotence, canonical equivalence) and a table; pictures against numpy."""

import io
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.preprocess import Form, Whitespace, image_array, normalize_text
from engine.pictures import Pictures

# Letters that mojibake is made of, invisible characters, accents, white space: where the steps meet each other.
TROUBLE = "aeÃ¯Â©â€œ™\x9d\u0301\u0308ﬁ½²\u200b\u200c\u200d\u00ad\ufeff\u202e \u00a0\t\r\n\u2028\x1c\x00ßİΩK한ᄒ"
TEXTS = (
    st.text(max_size=40)
    | st.text(alphabet=TROUBLE, max_size=24)
    | st.text(max_size=20).map(lambda text: text.encode().decode("latin-1"))
)
PARAMETERS = st.fixed_dictionaries(
    {
        "form": st.sampled_from(["NFC", "NFKC"]),
        "repair": st.booleans(),
        "strip_invisible": st.booleans(),
        "keep_joiners": st.booleans(),
        "whitespace": st.sampled_from(["collapse", "keep_lines", "keep"]),
        "casefold": st.booleans(),
    }
)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, parameters=PARAMETERS)
def test_a_second_time_changes_nothing(text: str, parameters: dict[str, bool]) -> None:
    once = normalize_text(text, **parameters)  # type: ignore[arg-type]  # hypothesis draws the literals as str
    assert normalize_text(once, **parameters) == once  # type: ignore[arg-type]


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, parameters=PARAMETERS)
def test_canonical_equivalents_agree(text: str, parameters: dict[str, bool]) -> None:
    decomposed = normalize_text(unicodedata.normalize("NFD", text), **parameters)  # type: ignore[arg-type]
    assert decomposed == normalize_text(unicodedata.normalize("NFC", text), **parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("plain text", "plain text"),
        ("â€œquotedâ€\x9d naÃ¯ve", "“quoted” naïve"),
        ("cafe\u0301", "café"),
        ("Å", "Å"),
        ("½ x²", "½ x²"),
        ("２００ ｋｇ", "２００ ｋｇ"),
        ("ﬁsh", "ﬁsh"),
        ("&lt;b&gt; &amp;", "&lt;b&gt; &amp;"),
        ("“curly” ‘quotes’", "“curly” ‘quotes’"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\u202eright\u202c \u200fto\u200e left", "right to left"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("jo\u200din\u200cer", "joiner"),
        ("❤\ufe0f stays", "❤\ufe0f stays"),
        (
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f!\U000e0041",
            "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f!",
        ),
        ("a\u200b\u0301", "á"),
        ("a\x00b\x1bc", "abc"),
        (" two \t\r\n lines\u00a0\u3000end ", "two lines end"),
        ("Ã\u00ad", "í"),
        ("Straße İ", "Straße İ"),
    ],
)
def test_the_table(given_text: str, expected: str) -> None:
    assert normalize_text(given_text) == expected


@pytest.mark.parametrize(
    ("given_text", "form", "whitespace", "switches", "expected"),
    [
        ("½ x² ﬁ", "NFKC", "collapse", {}, "1⁄2 x2 fi"),
        ("naÃ¯ve", "NFC", "collapse", {"repair": False}, "naÃ¯ve"),
        ("a\u200bb", "NFC", "collapse", {"strip_invisible": False}, "a\u200bb"),
        ("می\u200cخواهم", "NFC", "collapse", {"keep_joiners": False}, "میخواهم"),
        ("\n a  b \r\n\n c \n\n", "NFC", "keep_lines", {}, "a b\n\nc"),
        (" a  b\r\n", "NFC", "keep", {}, " a  b\r\n"),
        ("Straße", "NFC", "collapse", {"casefold": True}, "strasse"),
    ],
)
def test_each_parameter(
    given_text: str, form: Form, whitespace: Whitespace, switches: dict[str, bool], expected: str
) -> None:
    assert normalize_text(given_text, form=form, whitespace=whitespace, **switches) == expected


def test_a_text_built_to_settle_slowly_ends() -> None:
    hostile = "Ã\u200b" * 2000 + "â\u200b€\u200bœ" * 2000
    assert "\u200b" not in normalize_text(hostile)


def test_a_grey_picture() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    config = {"image_mode": "L", "size": {"height": 8, "width": 8}, "image_mean": [0.5], "image_std": [0.25]}
    array = image_array(Image.fromarray(pixels), config)
    assert array.shape == (1, 8, 8)
    np.testing.assert_allclose(array[0], (pixels / 255 - 0.5) / 0.25, rtol=1e-5)


def test_a_colour_picture_is_resized_and_channels_come_first() -> None:
    picture = Image.new("RGB", (10, 6), (255, 0, 51))
    config = {"image_mode": "RGB", "size": {"height": 4, "width": 5}, "do_normalize": False}
    array = image_array(picture, config)
    assert array.shape == (3, 4, 5)
    np.testing.assert_allclose(array.mean(axis=(1, 2)), [1.0, 0.0, 0.2], atol=1e-6)


def test_every_step_can_be_switched_off() -> None:
    config = {"image_mode": "L", "do_resize": False, "do_rescale": False, "do_normalize": False}
    array = image_array(Image.new("RGBA", (3, 2), (255, 255, 255, 255)), config)
    assert array.shape == (1, 2, 3)
    assert (array == 255).all()


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("PPM", "I")])
def test_a_picture_of_sixteen_bits_keeps_its_greys(kind: str, mode: str) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, kind)
    picture = Image.open(io.BytesIO(stream.getvalue()))
    assert picture.mode == mode
    for channels in ("L", "RGB"):
        config = {"image_mode": channels, "do_resize": False, "do_rescale": False, "do_normalize": False}
        assert image_array(picture, config)[-1].flatten().tolist() == list(range(256))
    assert Pictures((16, 16), "L", (0.0,), (1.0,)).pixels(stream.getvalue()).flatten().tolist() == list(range(256))
