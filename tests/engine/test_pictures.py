"""How pictures become tensors and go through a net: which are looked at, where a file goes class by class."""

from pathlib import Path

import pytest

from engine.errors import InvalidData
from engine.pictures import LOOKED_AT, spread
from tests.engine.runs import tiny_image_run, trained
from tests.engine.tiny import rows_of, tiny_image_rows, tiny_image_task


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 300, 5000])
def test_pictures_from_end_to_end_are_looked_at_once(count: int) -> None:
    numbers = spread(count)
    assert len(numbers) == min(count, LOOKED_AT)
    assert numbers == sorted(set(numbers))
    assert count == 0 or (numbers[0], numbers[-1]) == (0, count - 1)


def test_colours_behind_many_grey_pictures_are_seen() -> None:
    grey, coloured = (list(tiny_image_rows(count, mode=mode).payloads) for count, mode in ((320, "L"), (80, "RGB")))
    rows = rows_of([*grey, *coloured], [str(number).encode() for number in range(400)], [0] * 320 + [1] * 80)
    assert tiny_image_task(rows).pictures.mode == "RGB"


def test_single_small_pictures_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="one picture") as refused:
        trained(tiny_image_run(tmp_path, batch_size=1, max_steps=1), tmp_path)
    assert "batch_size" in str(refused.value.remedy)
