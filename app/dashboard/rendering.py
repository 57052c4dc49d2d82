"""From a template and its values to a page. Of any domain it knows the names of the tasks alone."""

from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.dashboard import assets, wording
from app.dashboard.navigation import sections
from app.dashboard.sessions import Visitor
from app.datasets.schemas import Task

THEMES = ("light", "dark")
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
TEMPLATES.globals.update(static=assets.address, sheets=assets.SHEETS, took=wording.took, tasks=get_args(Task))
TEMPLATES.filters.update(wording.FILTERS)


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """The page; beside `values` the template sees `request`, `visitor`, `navigation` and `theme`."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    theme = request.cookies.get("theme")
    common = {
        "request": request,
        "visitor": visitor,
        "navigation": sections(request, visitor.identity.role) if visitor else [],
        "theme": theme if theme in THEMES else None,
    }
    return HTMLResponse(TEMPLATES.get_template(template).render(common | values), status)


def to(path: str) -> Response:
    """Lead the browser on after a POST."""
    return RedirectResponse(path, 303)
