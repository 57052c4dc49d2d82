"""What can go wrong in a run, as data: a code, a title, every fault and its remedy. Knows no HTTP status.

EngineError
├── InvalidSpec      the job file is not JSON, or its fields do not fit
├── InvalidPlan      the instructions or their parameters do not go together (found before anything runs)
├── InvalidData      the rows cannot be trained on
├── Diverged         the loss left the finite numbers
├── TimeLimit        training.max_seconds went by
├── OutOfMemory      an allocation was refused
├── DiskFull         a file could not be written
├── BudgetExhausted  the next private draw would spend more than there is
├── LimitMissed      the receipt's figures miss the limits of the spec
└── WrongExport      the exported file does not answer as the trained model does
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Fault:
    """One fault: `pointer` is a JSON Pointer (RFC 6901) into the job spec, "" for the whole of it."""

    pointer: str
    code: str
    detail: str
    remedy: str


class EngineError(Exception):
    """A run cannot start or go on; `faults` lists every reason found."""

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The run failed"

    def __init__(self, detail: str, *, remedy: str = "", faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy
        self.faults = tuple(faults)

    def problem(self) -> dict[str, Any]:
        """The error as a JSON object: code, title, detail, remedy, errors."""
        return {
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "remedy": self.remedy,
            "errors": [asdict(fault) for fault in self.faults],
        }


class InvalidSpec(EngineError):
    """It is not JSON, or its fields do not fit."""

    code = "invalid_data"
    title = "The job file is not the spec of a job"


class InvalidPlan(EngineError):
    """The instructions or their parameters do not go together."""

    code = "invalid_plan"
    title = "The chosen instructions do not go together"

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.detail for fault in faults), remedy="mend every listed fault", faults=faults)


class InvalidData(EngineError):
    """The rows cannot be trained on."""

    code = "invalid_data"
    title = "The data cannot be trained on"


class Diverged(EngineError):
    """The loss left the finite numbers."""

    code = "diverged"
    title = "Training diverged"


class TimeLimit(EngineError):
    """`training.max_seconds` went by."""

    code = "time_limit"
    title = "The time limit was reached"


class OutOfMemory(EngineError):
    """An allocation was refused."""

    code = "out_of_memory"
    title = "The run needs more memory than it may have"


class DiskFull(EngineError):
    """A file could not be written."""

    code = "disk_full"
    title = "The disk is full"


class BudgetExhausted(EngineError):
    """The next private draw would spend more than there is; nothing was drawn."""

    code = "budget_exhausted"
    title = "The privacy budget is spent"


class LimitMissed(EngineError):
    """The receipt's figures miss the limits of the spec."""

    code = "limit_missed"
    title = "A measured figure misses its limit"


class WrongExport(EngineError):
    """The exported file does not answer as the trained model does."""

    code = "internal"
    title = "The exported file does not answer as the trained model does"
