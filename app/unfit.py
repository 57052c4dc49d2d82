"""Bodies that do not fit their model: every fault of theirs, and what is sound, to be checked as if it stood alone.

pydantic stops at what it cannot read, and so do the rules behind it: a wrong field would hide that another names a data
set that is not there. So what is faulty is taken out, at the smallest part that can go, and the rest is read again.
Not told are faults that only follow from what was taken out, or from what stands in for it. Knows no field by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError, WrapValidator

from app.errors import Invalid
from engine.errors import Fault
from engine.faults import from_validation, pointer_to

Model = TypeVar("Model", bound=BaseModel)
Path: TypeAlias = tuple[str, ...]
# What is told of a body because something is not there, which may only be not there any more.
_BY_ABSENCE = frozenset({"missing", "too_short", "missing_need"})


class Unfit(Generic[Model]):
    """A body that is no `model`, or may be none.

    A model may have two class attributes. `stand_ins`: values for fields without a default, with which the rest of a
    faulty body can be checked. `whatever`: by the name of such a field, where much depends on it, the codes of the
    faults that hold whatever stands there; others are not told of a body that does not say.
    """

    def __init__(self, body: Any, faults: Iterable[Fault], model: type[Model]) -> None:
        self.body = body
        self.lost: set[Path] = set()
        """The parts that are not looked at further."""
        self._first = list(faults)
        self._model = model
        self._moved: dict[Path, list[int]] = {}
        self.stood_in: frozenset[str] = frozenset()
        """The fields that only a stand-in fills, once `sound` has been read."""

    @property
    def faults(self) -> list[Fault]:
        """All that is wrong with the fields."""
        return self._read_again[0]

    @property
    def sound(self) -> Model | None:
        """The body without its faulty parts; None where nothing can be read of it."""
        return self._read_again[1]

    def told(self, faults: Iterable[Fault]) -> list[Fault]:
        """Faults of what is sound, with pointers into the body as it came; less those of parts that are faulty."""
        placed = [replace(fault, pointer=self._placed(fault.pointer)) for fault in faults]
        return [fault for fault in placed if self._concerns(fault)]

    @cached_property
    def _read_again(self) -> tuple[list[Fault], Model | None]:
        faults = list(self._first)
        if not isinstance(self.body, Mapping):
            return faults, None
        stand_ins: Mapping[str, Any] = getattr(self._model, "stand_ins", {})
        grown = {_path(fault.pointer) for fault in faults}
        while () not in grown:
            self.lost |= grown
            self._moved = {}
            rest = _without(self.body, self.lost, (), self._moved)
            self.stood_in = frozenset(stand_ins.keys() - rest.keys())
            try:
                return faults, self._model.model_validate({**stand_ins, **rest})
            except ValidationError as error:
                found = from_validation(error, self._model)
                told = self.told(found)
                faults += [fault for fault in told if not (self.lost and fault.code in _BY_ABSENCE)]
                where = {_path(self._placed(fault.pointer)) for fault in found}
                # What cannot be mended by leaving it out goes with all that it is a part of.
                grown = where - self.lost or {path[:-1] for path in where} - self.lost or {()}
        return faults, None

    def _concerns(self, fault: Fault) -> bool:
        path = _path(fault.pointer)
        if (path and path[0] in self.stood_in) or any(path[:end] in self.lost for end in range(1, len(path) + 1)):
            return False
        whatever: Mapping[str, frozenset[str]] = getattr(self._model, "whatever", {})
        return all(fault.code in codes for name, codes in whatever.items() if name in self.stood_in)

    def _placed(self, pointer: str) -> str:
        path: Path = ()
        for part in _path(pointer):
            moved = self._moved.get(path)
            path = (*path, str(moved[int(part)]) if moved is not None and int(part) < len(moved) else part)
        return pointer_to(path)


def checked(body: Model | Unfit[Model], faults_of: Callable[[Model], list[Fault]]) -> Model:
    """The body, where nothing is wrong with it.

    Args:
        body: as it was read.
        faults_of: what is wrong with what its fields ask for; of an unfit body, with what its sound ones do.

    Raises:
        Invalid: with every fault.
    """
    if not isinstance(body, Unfit):
        refuse(faults_of(body))
        return body
    sound = body.sound
    raise refusal([*body.faults, *(body.told(faults_of(sound)) if sound is not None else ())])


def refuse(faults: Sequence[Fault]) -> None:
    """Raise Invalid with all of these faults, if there are any."""
    if faults:
        raise refusal(faults)


def refusal(faults: Sequence[Fault]) -> Invalid:
    """The error that tells of these faults."""
    remedy = "mend every listed fault" if len(faults) > 1 else ""  # of one alone its own says what to do
    return Invalid("; ".join(fault.detail for fault in faults), remedy=remedy, faults=faults)


def lenient(model_of: Callable[[Any], type[BaseModel]]) -> WrapValidator:
    """To pydantic and to the API's document what it annotates; to the endpoint that, or `Unfit`.

    Args:
        model_of: what a body is read as.
    """

    def fitting(body: Any, validate: Any) -> Any:
        if isinstance(body, bytes):
            # It came under another content type than JSON's: that is the one fault to tell.
            return validate(body)
        model = model_of(body)
        try:
            return model.model_validate(body)
        except ValidationError as error:
            return Unfit(body, from_validation(error, model), model)

    return WrapValidator(fitting)


def _path(pointer: str) -> Path:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _without(node: Any, lost: Iterable[Path], at: Path, moved: dict[Path, list[int]]) -> Any:
    """A copy without what these paths lead to; `moved` is told where the items of a list stood that has lost some."""
    below: dict[str, list[Path]] = {}
    for path in lost:
        if path:
            below.setdefault(path[0], []).append(path[1:])
    gone = {part for part, tails in below.items() if () in tails}
    if isinstance(node, Mapping):
        return {
            name: _without(value, below[name], (*at, name), moved) if name in below else value
            for name, value in node.items()
            if name not in gone
        }
    if isinstance(node, list):
        kept = [number for number in range(len(node)) if str(number) not in gone]
        if len(kept) < len(node):
            moved[at] = kept
        return [
            _without(node[number], below[str(number)], (*at, str(number)), moved)
            if str(number) in below
            else node[number]
            for number in kept
        ]
    return node
