"""What can go wrong on the user's side; each error names the next step and the command's exit code.

ClientError              exit code 1 unless a subclass says otherwise
├── BadUsage             2   the command cannot do what was asked
├── Refused              2   the server answered with a problem (4xx)
├── Unreachable          3   no answer from the server, also after every retry
└── BadPackage           4   a downloaded file is damaged, or is no model package that this client can read
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """The command's exit codes, part of its contract."""

    OK = 0
    """it worked; with a job: the job succeeded"""
    FAILED = 1
    """the job failed, was cancelled, or missed its limits"""
    REFUSED = 2
    """bad usage, the server refused the request, or the disk a file"""
    UNREACHABLE = 3
    """the server could not be reached"""
    BAD_PACKAGE = 4
    """a downloaded file is damaged or cannot be read"""
    INTERRUPTED = 130
    """Ctrl-C; a submitted job goes on"""


class ClientError(Exception):
    """Something that the user can act on; `remedy` is the next step.

    `dataset`: the data set that the same command had uploaded before, and that stays.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, detail: str, *, remedy: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy
        self.dataset: str | None = None

    def lines(self) -> list[str]:
        """The error for people: what happened, then what to do."""
        return [self.detail, *([f"  next: {self.remedy}"] if self.remedy else [])]

    def json(self) -> dict[str, Any]:
        """The error for programs, in the shape of the server's problems."""
        return {"title": self.detail, "detail": self.detail, "remedy": self.remedy, "errors": []}


class BadUsage(ClientError):
    """The command cannot do what was asked."""

    exit_code = ExitCode.REFUSED


class Unreachable(ClientError):
    """No answer from the server, also after every retry."""

    exit_code = ExitCode.UNREACHABLE


class BadPackage(ClientError):
    """A downloaded file is damaged, or is no model package that this client can read."""

    exit_code = ExitCode.BAD_PACKAGE


class Refused(ClientError):
    """The server answered with a problem (RFC 9457), every fault in it."""

    exit_code = ExitCode.REFUSED

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        title = str(problem.get("title") or f"The server answered {status}")
        super().__init__(str(problem.get("detail") or title), remedy=str(problem.get("remedy") or ""))
        self.status = status
        self.title = title
        self.problem = dict(problem)

    def lines(self) -> list[str]:
        """The title, then one fault a line with its pointer and remedy."""
        faults = fault_lines(self.problem)
        if faults:
            return [f"{self.title} ({self.status})", *faults]
        head = self.title if self.title == self.detail else f"{self.title}: {self.detail}"
        return [f"{head} ({self.status})", *([f"  next: {self.remedy}"] if self.remedy else [])]

    def json(self) -> dict[str, Any]:
        """The problem as the server sent it."""
        return {"title": self.title, "status": self.status, **self.problem}


def fault_lines(problem: Mapping[str, Any]) -> list[str]:
    """Each of a problem's faults on one line: pointer (or line number), what is wrong, and the remedy."""
    lines = []
    for fault in problem.get("errors") or []:
        where = str(fault.get("pointer") or "")
        if fault.get("line") is not None:
            where = f"{where} line {fault['line']}".strip()
        remedy = f" — {fault['remedy']}" if fault.get("remedy") else ""
        lines.append(f"  {where or 'request'}: {fault.get('detail') or fault.get('code')}{remedy}")
    return lines
