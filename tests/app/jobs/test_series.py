"""Down-sampling keeps the ends and the shape, held against a slow version written from the definition."""

import math

from hypothesis import given
from hypothesis import strategies as st

from app.jobs.series import thinned


def by_definition(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Every bucket listed, every triangle's area by the shoelace formula."""
    inner, width = points[1:-1], (len(points) - 2) / (most - 2)
    buckets = [
        [point for at, point in enumerate(inner) if int(width * number) <= at < int(width * (number + 1))]
        for number in range(most - 3)
    ]
    buckets.append(inner[int(width * (most - 3)) :])
    kept = [points[0]]
    for number, bucket in enumerate(buckets):
        after = buckets[number + 1] if number + 1 < len(buckets) else [points[-1]]
        x = sum(point[0] for point in after) / len(after)
        y = sum(point[1] for point in after) / len(after)
        a = kept[-1]
        areas = [abs(a[0] * (b[1] - y) + b[0] * (y - a[1]) + x * (a[1] - b[1])) / 2 for b in bucket]
        kept.append(bucket[areas.index(max(areas))])
    return [*kept, points[-1]]


values = st.lists(st.integers(-1000, 1000), min_size=3, max_size=80)


@given(values, st.integers(3, 40))
def test_equal_to_the_definition(heights: list[int], most: int) -> None:
    points = [(float(step), float(height)) for step, height in enumerate(heights)]
    expected = points if len(points) <= most else by_definition(points, most)
    assert thinned(points, most) == expected


@given(values, st.integers(2, 40))
def test_ends_stay_and_the_number_holds(heights: list[int], most: int) -> None:
    points = [(float(step), float(height)) for step, height in enumerate(heights)]
    kept = thinned(points, most)
    assert len(kept) == min(most, len(points))
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)


def test_a_spike_is_kept() -> None:
    points = [(step, math.sin(step / 50) + (5.0 if step == 777 else 0.0)) for step in range(2_000)]
    assert points[777] in thinned(points, 50)
