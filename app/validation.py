"""What is wrong with a request before its route sees it, told at once: of its address, its headers and its body.

FastAPI tells of the address and the headers first, and a body that is `Unfit` is none of its faults: those of all three
are put together here. What only the route can find in a body (a data set that is not there) is told once the address is
right, since that says what is to be checked; a fault of the Idempotency-Key hides none of it.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.errors import OddAddress, ServiceError, Unparsable, UnsupportedMedia, problem
from app.unfit import Unfit, refusal
from engine.errors import Fault
from engine.faults import from_validation, remedy_for

_MENDS = {"header": "mend the header"} | dict.fromkeys(("path", "query", "cookie"), "mend the address")


def of_validation(request: Request, error: RequestValidationError) -> ServiceError:
    """What pydantic found in a body, a path or a query, as one of our errors with every fault."""
    kinds = {fault["type"] for fault in error.errors()}
    if "json_invalid" in kinds:
        where = error.errors()[0]["loc"][-1]
        return Unparsable(f"the body is not JSON: see character {where}", remedy="send one JSON object in UTF-8")
    if isinstance(error.body, bytes) and error.body:
        return UnsupportedMedia("this route takes JSON", remedy="send `Content-Type: application/json`")
    faults = [_outside(fault) for fault in error.errors() if fault["loc"][0] != "body"]
    if any(fault["loc"][0] == "body" for fault in error.errors()) or error.body is not None:
        faults += _body_faults(request, error.body)
    return refusal(faults)


def _outside(fault: Any) -> Fault:
    where, name = fault["loc"][0], fault["loc"][-1]
    remedy = f"{_MENDS.get(where, 'mend it')}: {remedy_for(fault['type'], fault.get('ctx', {}))}"
    return Fault("", fault["type"], f"{where} parameter {name}: {fault['msg']}", remedy)


def _body_faults(request: Request, body: Any) -> list[Fault]:
    """What the fields of a body lack, by themselves."""
    field = getattr(request.scope.get("route"), "body_field", None)
    if field is None:
        return []
    if body is None:
        return [Fault("", "missing", "the request has no body", "send one JSON object")]
    read, errors = field.validate(body, {}, loc=("body",))
    if isinstance(read, Unfit):
        return read.faults
    model = field.field_info.annotation
    if not errors:
        return []
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return [Fault("", "invalid", "the body does not fit this route", "see /docs")]
    try:
        model.model_validate(body)
    except ValidationError as again:
        return from_validation(again, model)
    return []


def _validation_error(request: Request, error: RequestValidationError) -> Response:
    return problem(request, of_validation(request, error))


async def _odd_address(request: Request, error: OddAddress) -> Response:
    faults = [*error.faults, *_query_faults(request, request.scope["route"].dependant)]
    with suppress(ValueError):  # no JSON, which is told once the address is right
        faults += _body_faults(request, await request.json())
    return problem(request, refusal(faults))


def _query_faults(request: Request, dependant: Dependant) -> Iterator[Fault]:
    """What is wrong with the values of a query that also has names which nobody knows, or has them twice."""
    for field in dependant.query_params:
        given = request.query_params.getlist(field.alias)
        if len(given) == 1:
            yield from map(_outside, field.validate(given[0], {}, loc=("query", field.alias))[1])
    for part in dependant.dependencies:
        yield from _query_faults(request, part)


def install(app: FastAPI) -> None:
    """Make every such error of `app` a problem."""
    app.add_exception_handler(RequestValidationError, _validation_error)  # type: ignore[arg-type]  # only its own
    app.add_exception_handler(OddAddress, _odd_address)  # type: ignore[arg-type]
