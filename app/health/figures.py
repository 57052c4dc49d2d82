"""Counts and durations of requests, in memory, told as Prometheus text. Knows nothing of what the requests were for."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Figures:
    """What this process has served since it started."""

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * (len(BOUNDS) + 2))
        self._lock = threading.Lock()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Add one request; status 0 is one whose client left before the answer."""
        with self._lock:
            self._requests[method, route, status] += 1
            row = self._seconds[route]
            row[next((at for at, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] += 1
            row[-1] += seconds

    def lines(self) -> Iterator[str]:
        """The figures as lines of Prometheus text."""
        with self._lock:
            requests = dict(self._requests)
            seconds = {route: list(row) for route, row in self._seconds.items()}
        yield "# HELP fiftytwo_http_requests_total Requests by method, route and status."
        yield "# TYPE fiftytwo_http_requests_total counter"
        for (method, route, status), number in sorted(requests.items()):
            labels = labelled({"method": method, "route": route, "status": str(status)})
            yield f"fiftytwo_http_requests_total{labels} {number}"
        yield "# HELP fiftytwo_http_request_seconds How long requests took, by route."
        yield "# TYPE fiftytwo_http_request_seconds histogram"
        for route, row in sorted(seconds.items()):
            below = 0.0
            for bound, count in zip((*BOUNDS, "+Inf"), row, strict=False):
                below += count
                labels = labelled({"route": route, "le": str(bound)})
                yield f"fiftytwo_http_request_seconds_bucket{labels} {below:g}"
            yield f"fiftytwo_http_request_seconds_sum{labelled({'route': route})} {row[-1]:g}"
            yield f"fiftytwo_http_request_seconds_count{labelled({'route': route})} {below:g}"


def labelled(labels: Mapping[str, str]) -> str:
    """Labels in braces, their values escaped."""
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
