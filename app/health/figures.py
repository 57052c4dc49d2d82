"""What this process has served: requests and their durations, in memory. Knows nothing of what they were for."""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# When a series began is of no use here, and doubles what is told.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Figures:
    """What this process has served since it started."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "fiftytwo_http_requests",
            "Requests that this process has answered; status 0: the client left before the answer.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fiftytwo_http_request_seconds",
            "How long requests of this process took.",
            ("route",),
            buckets=BOUNDS,
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Add one request; `route` is a template, never a path: ids must not become labels."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
