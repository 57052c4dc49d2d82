"""Lets the C library keep freed memory for the next step. Knows nothing of what is allocated.

A step on a processor frees all its activations and asks for as many again. By default glibc hands large blocks back to
the kernel at once and gets them as new pages, each of which the kernel fills with zeros: 4 to 5 % of a step's time.
"""

import ctypes
import sys

# glibc, malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 1 << 30


def keep_freed_memory(most_bytes: int = _KEPT_BYTES) -> None:
    """Serve blocks of up to so many bytes from memory that stays with this process; nothing happens without glibc."""
    if sys.platform != "linux":
        return
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_MMAP_THRESHOLD, most_bytes)
        tune(_M_TRIM_THRESHOLD, most_bytes)
