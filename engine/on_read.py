"""Sequences whose items are made when they are read. Knows neither what an item is nor where it comes from."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class OnRead(Sequence[T]):
    """A sequence over `read`, which is asked for numbers from 0 to below the length alone."""

    @abstractmethod
    def read(self, index: int) -> T:
        """Make one item."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        """One item, or a list of some; negative numbers count from the end."""
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        length = len(self)
        if not -length <= index < length:
            raise IndexError(index)
        return self.read(index % length)
