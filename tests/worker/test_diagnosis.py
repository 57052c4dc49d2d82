"""Why a process ended, from the last lines of its log."""

import pytest

from worker.diagnosis import DISK_FULL, OUT_OF_MEMORY, diagnose


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: could not execute a primitive",
        "RuntimeError: can't start new thread",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_a_refused_allocation_of_the_machine_or_of_its_gpu_would_be_refused_again(line: str) -> None:
    assert diagnose(1, f"step 12\n{line}\n") == OUT_OF_MEMORY


def test_a_full_disk_is_told_and_a_process_that_was_only_killed_may_be_tried_again() -> None:
    assert diagnose(1, "OSError: [Errno 28] No space left on device") == DISK_FULL
    assert diagnose(-9, "step 12") is None
