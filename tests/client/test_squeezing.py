"""Squeezed pictures and ids, worked out by hand."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import median_filter

from client.squeezing import fewer_bits, median, with_usual_words, without_the_rarest


def picture(seed: int = 0, shape: tuple[int, ...] = (6, 5)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8))


def test_eight_bits_are_the_identity_and_one_is_black_and_white() -> None:
    assert np.array_equal(np.asarray(fewer_bits(picture(), 8)), np.asarray(picture()))
    assert set(np.unique(np.asarray(fewer_bits(picture(), 1)))) == {0, 255}
    assert len(np.unique(np.asarray(fewer_bits(picture(shape=(40, 40)), 4)))) == 16


def test_fewer_bits_move_no_pixel_beyond_half_a_step() -> None:
    change = np.asarray(fewer_bits(picture(), 3)).astype(int) - np.asarray(picture()).astype(int)
    assert np.abs(change).max() <= 255 / 7 / 2 + 1


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_the_median_is_that_of_the_square(shape: tuple[int, ...]) -> None:
    size = (3, 3, *[1] * (len(shape) - 2))
    expected = median_filter(np.asarray(picture(shape=shape)), size=size, mode="reflect")
    assert np.array_equal(np.asarray(median(picture(shape=shape), 3)), expected)


def test_a_median_removes_a_single_bright_pixel() -> None:
    pixels = np.zeros((5, 5), np.uint8)
    pixels[2, 2] = 255
    assert not np.asarray(median(Image.fromarray(pixels), 2)).any()


def test_the_rarest_words_are_masked_whole() -> None:
    ids = np.array([0, 5, 6, 7, 8, 1])
    counts = np.array([9, 9, 9, 9, 9, 30, 2, 4, 20])
    assert without_the_rarest(ids, [[1], [2, 3], [4]], counts, mask=3, most=1).tolist() == [0, 5, 3, 3, 8, 1]
    assert without_the_rarest(ids, [], counts, mask=3).tolist() == ids.tolist()
    assert ids.tolist() == [0, 5, 6, 7, 8, 1]


def test_rare_tokens_give_way_to_usual_ones() -> None:
    assert with_usual_words(np.array([0, 2, 1]), np.array([0, 1, 1])).tolist() == [0, 1, 1]
