"""The sections of the panel, in the order in which they stand. Knows no page: one that answers nowhere is not shown."""

from dataclasses import dataclass

from starlette.requests import Request

from app.dependencies import RANKS
from app.identity import Role


@dataclass(frozen=True)
class Section:
    """A section: its name, the path of its first page, who may see it."""

    title: str
    path: str
    role: Role = "viewer"
    further: tuple[str, ...] = ()
    """Paths of pages that belong to it and lie elsewhere."""


SECTIONS = (
    Section("Jobs", "/jobs", further=("/compare",)),
    Section("Data sets", "/datasets"),
    Section("Models", "/models"),
    Section("Instructions", "/instructions"),
    Section("Experiments", "/experiments"),
    Section("Privacy", "/privacy"),
    Section("Webhooks", "/webhooks"),
    Section("Keys", "/keys", "admin"),
)


def sections(request: Request, role: Role) -> list[tuple[Section, bool]]:
    """Each section that a key of this role may open, and whether this page belongs to it."""
    there = {getattr(route, "path", "") for route in request.app.routes}
    path = request.url.path
    return [
        (one, path in (one.path, *one.further) or path.startswith(f"{one.path}/"))
        for one in SECTIONS
        if one.path in there and RANKS[role] >= RANKS[one.role]
    ]
