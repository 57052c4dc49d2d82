"""Stands between a worker and one engine: whatever happens to the worker, nothing of the engine's group outlives it.

Run by path as `python -I -S warden.py WORKER MEMORY COMMAND...` in a process group of its own. It starts the command
under its limits, passes SIGTERM on, and ends as the command ends. The kernel tells it of the worker's death, and then
it kills the group, grandchildren included; its own death ends the engine, and the worker sees to the rest.
"""

import ctypes
import os
import resource
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
LINUX = sys.platform == "linux"
LOOK_SECONDS = 1.0


def signal_at_death_of(parent: int, number: int) -> None:
    """Ask the kernel (Linux) for a signal when the parent dies; end at once where it has died already."""
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)


def become(command: list[str], memory_bytes: int, warden: int) -> None:
    """Turn into the command, with its limits."""
    signal_at_death_of(warden, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes > 0:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    os.execvp(command[0], command)


def kill_group(*_: object) -> None:
    """The worker is dead: so is its run, and this process with it."""
    os.killpg(0, signal.SIGKILL)


def wait_for(engine: int, worker: int) -> int:
    """The status of the engine's end. Where the kernel tells nothing of the worker's death, look for it."""
    while not LINUX:
        ended, status = os.waitpid(engine, os.WNOHANG)
        if ended:
            return status
        if os.getppid() != worker:
            kill_group()
        time.sleep(LOOK_SECONDS)
    return os.waitpid(engine, 0)[1]


def main() -> None:
    """Start, wait, and end in the same way."""
    worker, memory_bytes, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    signal.signal(signal.SIGUSR1, kill_group)
    signal_at_death_of(worker, signal.SIGUSR1)
    # Until the engine is there to hear it, a SIGTERM waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    warden = os.getpid()
    engine = os.fork()
    if engine == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        become(command, memory_bytes, warden)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(engine, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    status = wait_for(engine, worker)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
