"""Moments as others read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.moments import rfc3339


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 3, 4, 5, 6, 7, 89_999, tzinfo=UTC), "2026-03-04T05:06:07.089Z"),
        (datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), "2026-03-04T05:06:07.000Z"),
        (datetime(2026, 3, 4, 1, 6, 7, tzinfo=timezone(timedelta(hours=2))), "2026-03-03T23:06:07.000Z"),
    ],
)
def test_a_moment_is_in_utc_with_milliseconds(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text
