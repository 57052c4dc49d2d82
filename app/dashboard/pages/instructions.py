"""The 52 instructions as a pyramid, and a page for each that this server has."""

import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard import article
from app.dashboard.fields import Chosen
from app.dashboard.forms import fields_of, text_of
from app.dashboard.reading import TIERS, catalogue
from app.dashboard.rendering import render
from app.dashboard.routing import PanelRouter
from app.dashboard.visitors import Reader
from app.datasets.schemas import Task
from app.errors import NotFound
from engine.catalogue import CATALOGUE, named

router = PanelRouter()
HEADED = ("Sound", "Refuses", "Effect")


@router.get("/instructions")
def page(request: Request, visitor: Reader, task: Chosen[Task] = None) -> Response:
    """All 52: those that are here, and those that are not yet."""
    known = catalogue()
    bands = [
        (tier, [(band, [one for one in article.ALL if one.band == band]) for band in _bands(tier)]) for tier in TIERS
    ]
    return render(request, "instructions.html", tiers=bands, known=known, task=task, of=len(article.ALL))


@router.get("/instructions/{choice}")
def one(request: Request, visitor: Reader, choice: Annotated[str, Path(max_length=64)]) -> Response:
    """One instruction: what it does, why it is sound, what it refuses, what to expect of it."""
    kind = named(choice)
    if kind is None:
        planned = next((one for one in article.ALL if choice in (one.name, str(one.number))), None)
        detail = f"there is no instruction {choice!r}"
        if planned is not None:
            detail = f"{planned.number} {planned.name} is one of the 52, and this server does not have it yet"
        raise NotFound(detail, remedy="the page of all instructions shows which are here")
    shown = catalogue()[kind.number]
    fields = fields_of(shown["parameters"], null="null")
    return render(
        request,
        "instruction.html",
        one=shown,
        parts=parts_of(inspect.getdoc(CATALOGUE[kind.number]) or ""),
        parameters=[(field, text_of(field.default).replace("\n", ", ")) for field in fields],
        others=_others(shown),
    )


def _bands(tier: str) -> list[str]:
    return list(dict.fromkeys(one.band for one in reversed(article.ALL) if one.tier == tier))


def parts_of(docstring: str) -> list[tuple[str, Markup]]:
    """The paragraphs of an instruction's docstring with their headings; its first line stands elsewhere."""
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", docstring)[1:]]
    found = []
    for paragraph in paragraphs:
        head, colon, rest = paragraph.partition(": ")
        headed = bool(colon) and head in HEADED
        found.append((head if headed else "", with_code(rest[:1].upper() + rest[1:] if headed else paragraph)))
    return found


def with_code(text: str) -> Markup:
    """A text whose words between backticks are code."""
    pieces = text.split("`")
    marked = [Markup("<code>{}</code>").format(one) if index % 2 else escape(one) for index, one in enumerate(pieces)]
    return Markup("").join(marked)


def _others(shown: Mapping[str, Any]) -> dict[str, list[tuple[str, str, list[int]]]]:
    """What it needs and what it does not go with: the fact or name, the reason, and whose fact it is."""

    def whose(fact: str) -> list[int]:
        return [other["number"] for other in catalogue().values() if fact in (other["name"], *other["provides"])]

    return {
        title: [(fact, reason, whose(fact)) for fact, reason in shown[key].items()]
        for title, key in (("Needs", "needs"), ("Does not go with", "excludes"))
    }
