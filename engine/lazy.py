"""The only place where a library is imported inside a function. Knows nothing of what is done with it.

torch_pruning costs about a second and tens of megabytes, and few jobs prune; the API imports every instruction.
"""

import importlib
from functools import cache
from types import ModuleType


@cache
def torch_pruning() -> ModuleType:
    """Torch-Pruning: dependency graphs of coupled layers."""
    return importlib.import_module("torch_pruning")
