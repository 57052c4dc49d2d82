"""Runs that are stopped between two steps, and whether two of them ended with the same weights."""

import torch

from engine.interrupt import Interrupt
from engine.run import Run


def weights(run: Run) -> dict[str, torch.Tensor]:
    """A copy of a run's weights and buffers."""
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two of these are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StopAt(Interrupt):
    """Asks to stop once so many steps were taken."""

    def __init__(self, run: Run, step: int) -> None:
        super().__init__()
        self._run, self._step = run, step

    @property
    def requested(self) -> bool:
        """Whether it is time."""
        return self._run.clock.step >= self._step

    @requested.setter
    def requested(self, value: bool) -> None:
        pass
