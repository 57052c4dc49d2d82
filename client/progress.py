"""A job's progress: drawn live on a terminal, told in a few plain lines elsewhere.

Knows a job's JSON and rich, nothing of HTTP details.
"""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from client.http import TERMINAL, Client, Json

# Between two plain lines of one phase lie at least so many seconds and a tenth of the steps, or the longer silence.
_LINE_SECONDS, _SILENT_SECONDS = 10.0, 60.0
_LOOK_SECONDS = 2
_AWAY = "the server does not answer; trying again, and the job goes on"


def follow(client: Client, job_id: str, console: Console) -> Json:
    """The job once it has ended; meanwhile `console`, unless it is quiet, shows how far it is."""
    if console.quiet:
        return client.wait(job_id)
    if not console.is_terminal:
        return _follow_in_lines(client, job_id, console)
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
        for job in client.watch(job_id, every=0.5, away=lambda: progress.update(bar, description=_AWAY)):
            progress.update(bar, **drawn_of(job))
    return job


def _follow_in_lines(client: Client, job_id: str, console: Console) -> Json:
    lines, job = Lines(), {}

    def tell(line: str | None) -> None:
        if line:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    for job in client.watch(job_id, every=0, wait_seconds=_LOOK_SECONDS, away=lambda: tell(lines.away())):
        if job["state"] not in TERMINAL:
            tell(lines.line(job, time.monotonic()))
    return job


class Lines:
    """Which looks at a job deserve a plain line: each new state or phase, and now and then how far it is."""

    def __init__(self) -> None:
        self._at = 0.0
        self._phase: tuple[Any, Any] | None = None
        self._share = 0.0
        self._away = False

    def away(self) -> str | None:
        """The line of a server that does not answer, once until it is back."""
        told, self._away, self._phase = self._away, True, None
        return None if told else _AWAY

    def line(self, job: Json, now: float) -> str | None:
        """The line of this look, None where it deserves none; `now` is a clock's seconds."""
        self._away = False
        drawn, phase = drawn_of(job), (job["state"], job.get("phase"))
        share = drawn["completed"] / drawn["total"] if drawn["total"] else 0.0
        silent = now - self._at
        moved = share - self._share >= 0.1 and silent >= _LINE_SECONDS
        if phase == self._phase and not moved and silent < _SILENT_SECONDS:
            return None
        self._at, self._phase, self._share = now, phase, share
        return "  ".join(filter(None, (drawn["description"], drawn["steps"], drawn["figures"])))


def drawn_of(job: Json) -> dict[str, Any]:
    """What the bar shows of a job; without a known number of steps it only pulses.

    Once every step is taken, steps and figures say nothing of what the job is at.
    """
    progress = job.get("progress") or {}
    phase = job.get("phase") if job["state"] == "running" else None
    step, total, eta = progress.get("step") or 0, progress.get("total_steps"), progress.get("eta_seconds")
    stepping = total is None or step < total
    steps = f"step {step:,} of {total:,}" if total and stepping else ""
    return {
        "description": f"{job['state']}{f' · {phase}' if phase else ''}".replace("_", " "),
        "completed": step,
        "total": total or None,
        "steps": f"{steps} · {duration(eta)} left" if steps and eta is not None else steps,
        "figures": " · ".join(f"{name} {value:.4g}" for name, value in _worth_showing(job.get("latest") or {}))
        if stepping
        else "",
    }


def _worth_showing(latest: dict[str, float]) -> list[tuple[str, float]]:
    names = {"train_loss": "loss", "valid_score": "validation score", "examples_per_second": "examples a second"}
    return [(words, latest[name]) for name, words in names.items() if latest.get(name) is not None]


def duration(seconds: float) -> str:
    """A time in the two largest units that it has."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


class Download:
    """A bar for bytes on their way: `with Download(console, name, size) as seen: ... seen(bytes_so_far)`."""

    def __init__(self, console: Console, name: str, size: int) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._progress.add_task(name, total=size)

    def __enter__(self) -> "Download":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, seen: int) -> None:
        self._progress.update(self._bar, completed=seen)
