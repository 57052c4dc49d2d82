"""The only place where a library is imported inside a function. Knows nothing of what is done with it.

torch_pruning costs about a second and tens of megabytes, scikit-learn and SciPy's statistics as much together, and few
jobs need them; the API imports every instruction.
"""

import importlib
from functools import cache
from types import ModuleType


@cache
def gguf() -> ModuleType:
    """The writer and reader of llama.cpp's files."""
    return importlib.import_module("gguf")


@cache
def peft() -> ModuleType:
    """PEFT: adapters beside frozen layers."""
    return importlib.import_module("peft")


@cache
def torch_pruning() -> ModuleType:
    """Torch-Pruning: dependency graphs of coupled layers."""
    return importlib.import_module("torch_pruning")


@cache
def dp_accounting() -> ModuleType:
    """dp-accounting: the events that an account of privacy is made of."""
    return importlib.import_module("dp_accounting")


@cache
def dp_accounting_pld() -> ModuleType:
    """dp-accounting's privacy loss distributions."""
    return importlib.import_module("dp_accounting.pld")


@cache
def dp_accounting_rdp() -> ModuleType:
    """dp-accounting's Rényi divergences."""
    return importlib.import_module("dp_accounting.rdp")


@cache
def scipy_stats() -> ModuleType:
    """SciPy's distributions."""
    return importlib.import_module("scipy.stats")


@cache
def sklearn_covariance() -> ModuleType:
    """scikit-learn's covariances of few rows."""
    return importlib.import_module("sklearn.covariance")


@cache
def sklearn_linear_model() -> ModuleType:
    """scikit-learn's linear classifiers."""
    return importlib.import_module("sklearn.linear_model")


@cache
def sklearn_model_selection() -> ModuleType:
    """scikit-learn's splits."""
    return importlib.import_module("sklearn.model_selection")
