"""A job's progress, live on a terminal and silent elsewhere. Knows a job's JSON and rich, nothing of HTTP details."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from client.http import Client, Json


def follow(client: Client, job_id: str, console: Console) -> Json:
    """The job once it has ended, its progress drawn on `console` meanwhile if that is a terminal."""
    if not console.is_terminal:
        return client.wait(job_id)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TextColumn("{task.fields[figures]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(job_id, total=None, steps="", figures="")
        job: Json = {}
        for job in client.watch(job_id, every=0.5):
            progress.update(bar, **_drawn(job))
    return job


def _drawn(job: Json) -> dict[str, Any]:
    """What the bar shows of a job; without a known number of steps it only pulses."""
    progress = job.get("progress") or {}
    phase = job.get("phase") if job["state"] == "running" else None
    total = progress.get("total_steps")
    eta = progress.get("eta_seconds")
    steps = f"{progress.get('step') or 0}/{total}" if total else ""
    return {
        "description": f"{job['state']}{f' · {phase}' if phase else ''}",
        "completed": progress.get("step") or 0,
        "total": total or None,
        "steps": f"{steps} · {eta:.0f} s left" if steps and eta is not None else steps,
        "figures": " ".join(f"{name} {value:.4g}" for name, value in _worth_showing(job.get("latest") or {})),
    }


def _worth_showing(latest: dict[str, float]) -> list[tuple[str, float]]:
    names = ("train_loss", "valid_score", "examples_per_second")
    return [(name, latest[name]) for name in names if latest.get(name) is not None]


class Download:
    """A bar for bytes on their way: `with Download(console, name, size) as seen: ... seen(bytes_so_far)`."""

    def __init__(self, console: Console, name: str, size: int) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._progress.add_task(name, total=size)

    def __enter__(self) -> "Download":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, seen: int) -> None:
        self._progress.update(self._bar, completed=seen)
