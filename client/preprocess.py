"""What is done to an input before the model sees it: text normalisation (instruction 1) and pictures to arrays.

The training and every later reader of the artifact call these same functions, so that both see the same inputs.
Knows neither instructions nor files: a text or a picture comes in, a text or an array goes out.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import ftfy
import numpy as np
import numpy.typing as npt
from PIL import Image

Form = Literal["NFC", "NFKC"]
Whitespace = Literal["collapse", "keep_lines", "keep"]

# Mojibake and lone surrogates only. Everything else that ftfy could do either changes meaning (quotes, HTML entities,
# ligatures, full-width letters) or is the business of a later step (normal form, control characters, line breaks).
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_encoding=True,
    restore_byte_a0=True,
    replace_lossy_sequences=True,
    decode_inconsistent_utf8=True,
    fix_c1_controls=True,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=True,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)

# Group 1 keeps the flags of England, Scotland and Wales, which are spelled with otherwise invisible tag characters.
# Controls that `str.isspace` calls white space are left to the white-space step.
_INVISIBLE = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)"
    "|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_JOINERS = re.compile("[\u200c\u200d]")
_LATIN = "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_LATIN_JOINERS = re.compile(f"(?<=[{_LATIN}])[\u200c\u200d]+(?=[{_LATIN}])")

# Honest text settles in two or three passes. The bound keeps a text that was built to settle slowly from costing more.
_MAX_PASSES = 16


def normalize_text(
    text: str,
    *,
    form: Form = "NFC",
    repair: bool = True,
    strip_invisible: bool = True,
    keep_joiners: bool = True,
    whitespace: Whitespace = "collapse",
    casefold: bool = False,
) -> str:
    """Give equal texts one encoding: repair, normal form, strip, white space, in this order, until nothing changes.

    A later step can make work for an earlier one (a stripped character lets an accent meet its letter), so the order
    is run through again until the text stands still; that makes the function idempotent. Canonically equivalent texts
    give equal results, because the text is composed first: ftfy recognises mojibake in composed letters only.

    Args:
        text: any string.
        form: the Unicode normal form; NFKC changes meaning ("x²" becomes "x2").
        repair: undo mojibake.
        strip_invisible: drop control characters, zero-width characters, bidi controls and soft hyphens.
        keep_joiners: while stripping, keep ZWJ and ZWNJ but between two Latin letters; False drops all of them.
        whitespace: "collapse" makes every run one space, "keep_lines" does so inside each line and drops empty lines
            at both ends, "keep" leaves white space alone.
        casefold: fold case for caseless comparison.

    Source: Unicode Standard Annex 15; ftfy's documentation.
    """
    text = unicodedata.normalize("NFC", text)
    for _ in range(_MAX_PASSES):
        repaired = ftfy.fix_text(text, _REPAIR) if repair and not text.isascii() else text
        text = unicodedata.normalize(form, repaired)
        if casefold:
            text = unicodedata.normalize(form, text.casefold())
        if strip_invisible:
            text = _INVISIBLE.sub(r"\1", text)
            text = (_LATIN_JOINERS if keep_joiners else _JOINERS).sub("", text)
        text = _even_spaces(text, whitespace)
        if text == repaired:
            return text
    return text


def _even_spaces(text: str, whitespace: Whitespace) -> str:
    if whitespace == "collapse":
        return " ".join(text.split())
    if whitespace == "keep_lines":
        return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip("\n")
    return text


def eight_bits(image: Image.Image) -> Image.Image:
    """The upper eight bits of a grey picture of sixteen, as other programs show it; any other as it is.

    Pillow's own conversion takes every level above 255 for white.
    """
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
    return Image.fromarray(levels.astype(np.uint8))


def sized_image(image: Image.Image, config: Mapping[str, Any]) -> Image.Image:
    """A picture in the mode and the size that the configuration of `image_array` names."""
    mode = config.get("image_mode", "RGB")
    image = eight_bits(image)
    if image.mode != mode:
        image = image.convert(mode)
    if config.get("do_resize", True):
        size = (int(config["size"]["width"]), int(config["size"]["height"]))
        if image.size != size:
            image = image.resize(size, Image.Resampling(config.get("resample", Image.Resampling.BILINEAR)))
    return image


def image_array(image: Image.Image, config: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """A picture as the model's `pixel_values`.

    Args:
        image: any Pillow picture.
        config: the content of `preprocessor_config.json`: Hugging Face's keys do_resize, size {height, width},
            resample, do_rescale, rescale_factor, do_normalize, image_mean, image_std, and `image_mode` ("L" or "RGB").

    Returns:
        (channels, height, width), float32; one channel for "L", three for "RGB".
    """
    pixels = np.asarray(sized_image(image, config), dtype=np.float32)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if config.get("do_rescale", True):
        pixels = pixels * np.float32(config.get("rescale_factor", 1 / 255))
    if config.get("do_normalize", True):
        mean = np.asarray(config["image_mean"], dtype=np.float32)[:, None, None]
        deviation = np.asarray(config["image_std"], dtype=np.float32)[:, None, None]
        pixels = (pixels - mean) / deviation
    return np.ascontiguousarray(pixels, dtype=np.float32)
