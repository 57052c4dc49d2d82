"""Fewer points that look the same: Largest-Triangle-Three-Buckets. Pure arithmetic on (step, value) pairs."""

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])


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
    edges = [1 + int(width * bucket) for bucket in range(max_points - 2)] + [count - 1, count]
    chosen = [points[0]]
    for bucket in range(max_points - 2):
        after = points[edges[bucket + 1] : edges[bucket + 2]]
        mean_x, mean_y = sum([one[0] for one in after]) / len(after), sum([one[1] for one in after]) / len(after)
        left_x, left_y = chosen[-1][0], chosen[-1][1]
        across, up = left_x - mean_x, mean_y - left_y
        best, largest = points[edges[bucket]], -1.0
        for point in points[edges[bucket] : edges[bucket + 1]]:
            # Twice the triangle's area; written out, as it is worked out for every point there is.
            area = abs(across * (point[1] - left_y) - (left_x - point[0]) * up)
            if area > largest:
                best, largest = point, area
        chosen.append(best)
    return [*chosen, points[-1]]
