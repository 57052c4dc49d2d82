"""Where a run took place and by what: versions, device, processor, code. Knows no task and measures nothing."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

import engine
from engine.prepare import device
from engine.run import Run

_FLAGS = (
    "fma",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
)


def environment(run: Run) -> dict[str, Any]:
    """Where it ran, by what."""
    total = hashlib.sha256()
    for path in sorted(Path(engine.__file__).parent.rglob("*.py")):
        total.update(path.read_bytes())
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        "transformers": importlib.metadata.version("transformers"),
        "device": _device(run),
        "threads": torch.get_num_threads(),
        "processor_flags": _processor_flags(),
        "seed": run.spec.training.seed,
        "code_version": f"{importlib.metadata.version('fiftytwo')}+{total.hexdigest()[:12]}",
    }


def _device(run: Run) -> str:
    """What the run computed on: other kinds than `train` leave an accelerator alone."""
    on_gpu = run.spec.kind == "train" and device().type == "cuda"
    return torch.cuda.get_device_name() if on_gpu else platform.machine()


def _processor_flags() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    present = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
    return [flag for flag in _FLAGS if flag in present]
