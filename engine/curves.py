"""The history of a run's metrics in bounded memory, for the report. Knows no metric by name."""

from collections.abc import Mapping
from typing import Any

MOST_POINTS = 512


def keep(curves: dict[str, Any], step: int, values: Mapping[str, float]) -> None:
    """Add a step's values; a series that grew too long loses every other point, and takes up half as many from then on.

    `curves[name]` is {"every": steps between points, "points": [[step, value], ...]}; a repeated step wins over what it
    repeats, as in the database.
    """
    for name, value in values.items():
        series = curves.setdefault(name, {"every": 1, "points": []})
        points = series["points"]
        while points and points[-1][0] >= step:
            points.pop()
        if points and step - points[-1][0] < series["every"]:
            continue
        points.append([step, value])
        if len(points) > MOST_POINTS:
            del points[1::2]
            series["every"] = max(1, (points[-1][0] - points[0][0]) // (len(points) - 1))
