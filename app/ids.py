"""Ids made by the server: a prefix that names the kind, and a monotonic ULID, which sorts by the time of making.

An id is no secret: within a millisecond one follows from the one before. Knows nothing of what the ids are given to.
"""

import os
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_BITS = 80
# Two characters at a time: an id is made for each request, each job and each line of the audit log.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_SHIFTS = range(120, -10, -10)

_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A new id such as `job_01J...`; within one process each is greater than the one before."""
    global _last
    now = time.time_ns() // 1_000_000
    with _lock:
        if now > _last >> RANDOM_BITS:
            _last = now << RANDOM_BITS | int.from_bytes(os.urandom(RANDOM_BITS // 8), "big")
        else:
            # Ids of one millisecond, or of a clock that was set back, keep the order in which they were made.
            _last += 1
        value = _last
    return f"{prefix}_" + "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
