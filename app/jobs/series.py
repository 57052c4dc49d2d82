"""Fewer points that look the same: Largest-Triangle-Three-Buckets. Pure arithmetic on (step, value) pairs."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T", bound=tuple[float, ...])


def thinned(points: Sequence[T], max_points: int) -> list[T]:
    """At most `max_points` of the points, chosen so that the drawn line keeps its shape.

    The first and the last point stay; of each bucket between them stays the point that spans the largest triangle with
    the one chosen before and the mean of the bucket after (Steinarsson, Downsampling Time Series, 2013, section 4.2).

    Args:
        points: tuples that begin with x and y, x rising.
        max_points: at least 2.
    """
    count = len(points)
    if count <= max_points:
        return list(points)
    if max_points == 2:
        return [points[0], points[-1]]
    width = (count - 2) / (max_points - 2)
    edges = [1 + int(width * bucket) for bucket in range(max_points - 2)] + [count - 1]
    chosen = [points[0]]
    for bucket in range(max_points - 2):
        start, end = edges[bucket], edges[bucket + 1]
        after = points[end : edges[bucket + 2] if bucket + 2 < len(edges) else count]
        mean = (sum(one[0] for one in after) / len(after), sum(one[1] for one in after) / len(after))
        chosen.append(max(points[start:end], key=lambda one, mean=mean: _area(chosen[-1], one, mean)))  # type: ignore[misc]
    return [*chosen, points[-1]]


def _area(left: tuple[float, ...], middle: tuple[float, ...], right: tuple[float, ...]) -> float:
    """Twice the triangle's area."""
    return abs((left[0] - right[0]) * (middle[1] - left[1]) - (left[0] - middle[0]) * (right[1] - left[1]))
