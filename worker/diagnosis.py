"""Why an engine ended without a last word, as far as its exit code and log tell. Knows no process and no job."""

import re
from typing import Any

# The last lines that Python, PyTorch, CUDA's libraries, the C++ library and the operating system leave when an
# allocation was refused.
NO_MEMORY = re.compile(
    r"MemoryError|std::bad_alloc|out of memory|Cannot allocate memory|can't allocate memory|failed to map segment"
    r"|_STATUS_ALLOC_FAILED|could not (create|execute) a primitive|can't start new thread",
    re.IGNORECASE,
)
NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|ENOSPC", re.IGNORECASE)
LAST_LINES = 12

OUT_OF_MEMORY: dict[str, Any] = {
    "code": "out_of_memory",
    "title": "The run needs more memory than it may have",
    "detail": "An allocation of the run was refused.",
    "remedy": "choose a smaller batch_size, max_length or model, or instruction 24 (gradient_accumulation)",
    "errors": [],
}
DISK_FULL: dict[str, Any] = {
    "code": "disk_full",
    "title": "The disk is full",
    "detail": "A file of the run could not be written.",
    "remedy": "ask the operator for room, then submit the job again",
    "errors": [],
}
DATA_GONE: dict[str, Any] = {
    "code": "invalid_data",
    "title": "The data set is gone",
    "detail": "A file that the run reads is not stored any more.",
    "remedy": "upload the data set again and submit the job with its new id",
    "errors": [],
}


def diagnose(code: int, log_tail: str) -> dict[str, Any] | None:
    """The error of a run that would fail again in the same way; None: the process was lost, and another try may do.

    Args:
        code: exit code of the process; negative: the signal that killed it.
        log_tail: the end of the run's log.
    """
    if code == 0:
        return None
    last = "\n".join(log_tail.rstrip().splitlines()[-LAST_LINES:])
    if NO_MEMORY.search(last):
        return OUT_OF_MEMORY
    if NO_ROOM.search(last):
        return DISK_FULL
    return None
