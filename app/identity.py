"""Who calls, and what the edge needs of whoever knows the keys. Knows not how keys are stored."""

from dataclasses import dataclass
from typing import Literal, Protocol

KeyRole = Literal["viewer", "member", "admin"]
"""The roles that a key of a tenant may have, each with all that the one before may."""
Role = Literal["rater", KeyRole]
"""A rater fetches and casts the ballots of one experiment, and may do nothing else."""


@dataclass(frozen=True)
class Identity:
    """Who calls: the tenant, the id of the key, and its role."""

    tenant: str
    key: str
    role: Role


class Keys(Protocol):
    """Finds the holder of a secret."""

    def digest(self, secret: str) -> str:
        """What stands for the secret."""

    def remembered(self, digest: str) -> Identity | None:
        """The holder, if it can be told at once."""

    def look_up(self, digest: str) -> Identity | None:
        """The holder, told after a query; None if there is none."""

    def known(self, key_id: str) -> bool:
        """Whether a key is there still, told after a query."""


class Rate(Protocol):
    """Bounds how often a key calls."""

    per_second: float

    def take(self, key: str) -> float:
        """Take one request; 0, or the seconds until there is one to take."""
