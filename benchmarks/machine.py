"""What the figures were measured on: processor, cores, versions. Knows no benchmark."""

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

_SHOWN = (
    "torch",
    "transformers",
    "accelerate",
    "onnxruntime",
    "fastapi",
    "starlette",
    "uvicorn",
    "sqlalchemy",
    "celery",
)


@cache
def processor_flags() -> frozenset[str]:
    """The processor's features, as Linux lists them."""
    return frozenset(_cpuinfo("flags").split() + _cpuinfo("Features").split())


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 natively."""
    return any("bf16" in flag for flag in processor_flags())


def processor() -> str:
    """The processor's name and what of it matters here."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    matter = sorted(flag for flag in processor_flags() if "bf16" in flag or "vnni" in flag or flag == "amx_int8")
    return f"{name} ({', '.join(matter) or 'no bf16'})"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Python and the packages that the figures depend on."""
    found = {"Python": platform.python_version()}
    for name in _SHOWN:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def commit(root: Path) -> str:
    """The commit that was measured; with a plus where the code differs from it, "unknown" without git."""
    git = ["git", "-C", str(root)]
    try:
        asked = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        # What a run of the benchmarks itself writes is no difference.
        same = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", ".", ":!docs/benchmarks*", ":!docs/acceptance.md"], check=False
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return asked.stdout.strip() + ("+" if same.returncode else "")


def memory_gib() -> float:
    """Physical memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


@cache
def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")
