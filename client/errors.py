"""What can go wrong on the user's side; each error names the next step and the command's exit code.

ClientError              exit code 1 unless a subclass says otherwise
├── BadUsage             2   the command cannot do what was asked
├── Refused              2   the server answered with a problem (4xx)
├── Unreachable          3   no answer from the server, also after every retry
├── BadPackage           4   a downloaded file is damaged, or is no model package that this client can read
└── Interrupted        130   Ctrl-C; the job that was followed goes on
"""

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar

_REQUESTS = re.compile(r"GET /v1/(jobs|datasets|models|instructions)\b(?!/)")


class ExitCode(IntEnum):
    """The command's exit codes, part of its contract."""

    OK = 0
    FAILED = 1
    REFUSED = 2
    UNREACHABLE = 3
    BAD_PACKAGE = 4
    INTERRUPTED = 130


EXIT_MEANS: Mapping[ExitCode, str] = {
    ExitCode.OK: "it worked (with a job: it succeeded)",
    ExitCode.FAILED: "the job failed, was cancelled or missed its limits; a server could not start",
    ExitCode.REFUSED: "bad usage, a refused request, or a file that cannot be written",
    ExitCode.UNREACHABLE: "the server could not be reached",
    ExitCode.BAD_PACKAGE: "a downloaded file is damaged or cannot be read",
    ExitCode.INTERRUPTED: "interrupted (a submitted job goes on)",
}


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


class Interrupted(ClientError):
    """Ctrl-C while a job was followed, which goes on."""

    exit_code = ExitCode.INTERRUPTED


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
        return [f"{head} ({self.status})", *([f"  next: {in_commands(self.remedy)}"] if self.remedy else [])]

    def json(self) -> dict[str, Any]:
        """The problem as the server sent it."""
        return {"title": self.title, "status": self.status, **self.problem}


def in_commands(text: str) -> str:
    """What the server advises, by the command where there is one for the same request."""
    return _REQUESTS.sub(r"`fiftytwo \1`", text)


def fault_lines(problem: Mapping[str, Any]) -> list[str]:
    """Each of a problem's faults on one line: pointer (or line number), what is wrong, and the remedy."""
    lines = []
    for fault in problem.get("errors") or []:
        where = str(fault.get("pointer") or "")
        if fault.get("line") is not None:
            where = f"{where} line {fault['line']}".strip()
        remedy = f" — {in_commands(fault['remedy'])}" if fault.get("remedy") else ""
        lines.append(f"  {where or 'request'}: {fault.get('detail') or fault.get('code')}{remedy}")
    return lines
