"""Turns a fresh process into the engine: bound to its parent's life and to its limits, then replaced by the command.

Run by path as `python -I -S child.py PARENT MEMORY COMMAND...`, so that nothing of this runs between a fork of the
threaded worker and an exec. Knows nothing of jobs.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def bind_to_parent(parent: int) -> None:
    """Die with the parent, also where it has died already. Linux only; elsewhere the parent's death goes unnoticed."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def main() -> None:
    """Bind, limit, exec."""
    parent, memory_bytes, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    bind_to_parent(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes > 0:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
