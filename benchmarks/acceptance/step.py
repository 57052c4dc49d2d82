"""What a step of the walk is, and what it found. Knows no step and no page."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.acceptance.walk import Walk


@dataclass(frozen=True)
class Finding:
    """A line of the issue: what was sent, what came back, whether it holds.

    `sent`: the body of the request that the line is about; None where it is about none. `came`: figures by name.
    """

    asks: str
    sent: Mapping[str, Any] | None
    came: Mapping[str, Any]
    held: bool
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """Some lines of the issue that are walked together; `asks` has its words."""

    name: str
    title: str
    asks: str
    walk: Callable[[Walk], Iterator[Finding]]


@dataclass(frozen=True)
class Walked:
    """What came of a step; `absent` says what it needed and did not find."""

    step: Step
    findings: tuple[Finding, ...] = ()
    absent: str = ""

    @property
    def held(self) -> bool:
        """Whether no line was missed."""
        return all(one.held for one in self.findings)
