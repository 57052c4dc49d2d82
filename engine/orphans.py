"""How a child process dies with its parent. Knows nothing of what either does.

Not for the warden of `worker`: it is run by its path, without any package.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child of a process with threads should do as little as it can.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with(parent: int | None = None) -> None:
    """Ask the kernel (Linux) to kill this process when its parent goes, even by `kill -9`.

    The kernel's signal fires when the parent's *thread* ends: start such children from a thread that stays, the main
    one. It survives exec, and does not reach grandchildren: each link of a chain asks for itself.

    Args:
        parent: who is expected to be the parent; where it is another already, this process ends at once.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if parent is not None and os.getppid() != parent:
            os._exit(1)
