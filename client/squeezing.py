"""Pictures and token ids with detail squeezed out: what an honest input survives and a tuned one often does not.

Knows no model; the same functions serve the calibration and every later answer.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Ids = npt.NDArray[np.int64]


def fewer_bits(picture: Image.Image, bits: int) -> Image.Image:
    """Every channel rounded to `bits` bits of depth; 8 is the identity. Xu et al. 2018, section 4.1."""
    levels = 2**bits - 1
    pixels = np.asarray(picture, dtype=np.float32) / 255
    return Image.fromarray((np.rint(np.rint(pixels * levels) / levels * 255)).astype(np.uint8))


def median(picture: Image.Image, size: int) -> Image.Image:
    """Each pixel the median of its square of `size` pixels, edges mirrored. Xu et al. 2018, section 4.2."""
    pixels = np.asarray(picture, dtype=np.uint8)
    before, after = (size - 1) // 2, size // 2
    wide = np.pad(pixels, [(before, after), (before, after), *[(0, 0)] * (pixels.ndim - 2)], mode="symmetric")
    squares = np.lib.stride_tricks.sliding_window_view(wide, (size, size), axis=(0, 1))
    return Image.fromarray(np.median(squares, axis=(-2, -1)).astype(np.uint8))


def without_the_rarest(ids: Ids, words: Sequence[Sequence[int]], counts: Ids, mask: int, most: int = 3) -> Ids:
    """The ids with the rarest words masked; a word is as rare as its rarest token."""
    rarity = [min(int(counts[ids[place]]) for place in word) for word in words]
    changed = ids.copy()
    for number in sorted(range(len(words)), key=lambda one: (rarity[one], one))[:most]:
        changed[list(words[number])] = mask
    return changed


def with_neighbours(ids: Ids, places: Sequence[int], table: Ids, copies: int, share: float) -> Ids:
    """Copies of the ids, (copies, tokens), in each of which about `share` of the places have a neighbour instead.

    What is drawn follows from the ids alone. `table`: neighbours by id, (vocabulary, most), -1 for none.
    """
    drawn = np.random.default_rng(np.frombuffer(ids.astype("<i8").tobytes(), dtype=np.uint32))
    changed = np.tile(ids, (copies, 1))
    for place in places:
        near = table[ids[place]]
        near = near[near >= 0]
        chosen = drawn.random(copies) < share
        if len(near):
            changed[chosen, place] = drawn.choice(near, int(chosen.sum()))
    return changed


def with_usual_words(ids: Ids, usual: Ids) -> Ids:
    """The ids with each rare token replaced by its usual neighbour, (vocabulary,). Mozes et al. 2021."""
    changed: Ids = usual[ids].astype(np.int64)
    return changed
