"""Reads the points of a run's metrics, of which there may be very many: as the database has them, nothing made of each.

Knows no request.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import String, select, type_coerce
from sqlalchemy.orm import Session

from app.jobs.models import MetricPoint
from app.moments import rfc3339

Stored = str | datetime
Point = tuple[int, float, Stored]


def series_of(session: Session, job_id: str, names: Sequence[str] | None, since_step: int) -> dict[str, list[Point]]:
    """Step, value and moment (for `moment`) of each point from a step on, by name; of all names where they are None."""
    # Not as moments: to make a hundred thousand takes longer than to read them, and few are shown.
    at = type_coerce(MetricPoint.at, String)
    query = select(MetricPoint.name, MetricPoint.step, MetricPoint.value, at)
    query = query.where(MetricPoint.job_id == job_id, MetricPoint.step >= since_step)
    if names is not None:
        query = query.where(MetricPoint.name.in_(names))
    found: dict[str, list[Point]] = {}
    last, points = None, list[Point]()
    for name, step, value, stored in session.execute(query.order_by(MetricPoint.name, MetricPoint.step)):
        if name != last:
            last, points = name, found.setdefault(name, [])
        points.append((step, value, stored))
    return found


def moment(stored: Stored) -> str:
    """A stored moment as answers have it: RFC 3339 in UTC with milliseconds."""
    if isinstance(stored, datetime):
        return rfc3339(stored)
    # SQLite has a text without a time zone, which `UtcDateTime` keeps in UTC.
    return f"{stored[:10]}T{stored[11:23]:0<12}Z" if len(stored) > 19 else f"{stored[:10]}T{stored[11:]}.000Z"
