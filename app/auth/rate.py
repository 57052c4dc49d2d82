"""A rate limit a key: a bucket that holds a second's requests and fills up steadily. Knows nothing of HTTP."""

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Buckets in this process's memory, one a key; `clock` gives seconds."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._most = max(1.0, per_second)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Take one request; 0, or the seconds until there is one to take."""
        now = self._clock()
        with self._lock:
            left, at = self._buckets.get(key, (self._most, now))
            left = min(self._most, left + (now - at) * self.per_second)
            taken = left >= 1
            self._buckets[key] = (left - 1 if taken else left, now)
        return 0.0 if taken else (1 - left) / self.per_second
