"""How a moment is written for others: in answers, events, deliveries and log lines. Knows nothing else."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """An aware moment as RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
