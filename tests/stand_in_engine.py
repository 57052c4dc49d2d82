"""Stands in for `python -m engine`: the same command line, event lines, snapshots, signals and exit codes, no torch.

Its weights are a chain of hashes, one link a step, so a step left out or taken twice shows in the outputs. It reads
how to behave from the spec's member `stand_in`, or from the environment variable STAND_IN (both JSON):

    steps, sleep (seconds a step), checkpoint_every, fail (a problem), grandchild (start a process that sleeps),
    private (an event of the ledger, of which one is drawn before each step, noted in draws.txt by a spy after it)
    crash {"at": step, "how": kill | exit | memory | hang | untold, "once": bool}, stubborn (SIGTERM is ignored)
    where untold is a draw that is made, and the process killed before it could tell
    rows, learned (the share of rows that it answers rightly, by the names of the instructions; null: it fails): where a
    spec asks for answers, that many rows are answered, the same row rightly by whichever of two has the larger share
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

stop = False
DIVERGED = {"code": "diverged", "title": "It diverged", "detail": "", "remedy": "", "errors": []}


def tell(event: str, **members: Any) -> None:
    """Write one event line."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"event": event, "at": at, **members}), flush=True)


def ask_to_stop(*_: object) -> None:
    """Remember SIGTERM until the step is done."""
    global stop
    stop = True


def write(path: Path, data: bytes) -> None:
    """Let a file appear whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def snapshot(folder: Path, step: int, chain: str) -> None:
    """Write the snapshot of a step and tell of it."""
    path = folder / "checkpoints" / f"step_{step:06d}.json"
    data = json.dumps({"step": step, "chain": chain}).encode()
    write(path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    tell("checkpoint_written", step=step, path=str(path.relative_to(folder)), sha256=sha256)


def newest(folder: Path) -> tuple[int, str]:
    """The last step and the chain up to it."""
    found = sorted((folder / "checkpoints").glob("step_*.json"))
    if not found:
        return 0, ""
    saved = json.loads(found[-1].read_bytes())
    return saved["step"], saved["chain"]


def output(folder: Path, kind: str, filename: str, media_type: str, data: bytes) -> None:
    """Write one output and tell of it."""
    path = folder / "outputs" / filename
    write(path, data)
    tell(
        "file_written",
        kind=kind,
        filename=filename,
        path=str(path.relative_to(folder)),
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        media_type=media_type,
    )


def draw(folder: Path, event: dict[str, Any], step: int | None) -> None:
    """Write a draw into the journal, tell of it, and only then make it; the spy counts those that were made.

    `step` None: it is not told of.
    """
    with (folder / "privacy.jsonl").open("a") as journal:
        journal.write(json.dumps(event) + "\n")
    drawn = len((folder / "privacy.jsonl").read_text().splitlines())
    if step is not None:
        tell("privacy_drawn", step=step, draw=event, drawn=drawn)
    with (folder.parent / f"{folder.name}.draws").open("a") as spy:
        spy.write(".")


def arm_of(spec: dict[str, Any]) -> str:
    """The names of its instructions."""
    return "+".join(one["name"] for one in spec.get("instructions", ()))


def answers(spec: dict[str, Any], ways: dict[str, Any]) -> bytes:
    """A line for each of so many rows; the seed moves which of them are right."""
    arm, lines = arm_of(spec), []
    for row in range(ways["rows"]):
        drawn = hashlib.sha256(f"{row}:{spec['training']['seed'] if row % 4 == 0 else 0}".encode()).digest()
        truth, right = row % 2, drawn[0] / 256 < ways["learned"].get(arm, 0.6)
        said = truth if right else 1 - truth
        told = {"id": f"{row:016x}", "sha256": "", "figures": [float(right), truth, said]}
        lines.append(json.dumps({**told, "label": ("ham", "spam")[truth], "predicted": ("ham", "spam")[said]}) + "\n")
    return "".join(lines).encode()


def deliver(folder: Path, chain: str, spec: dict[str, Any], ways: dict[str, Any]) -> None:
    """Write every output and tell of each."""
    tell("phase_started", phase="export")
    output(folder, "model", "model.zip", "application/zip", f"model:{chain}".encode())
    output(folder, "checkpoint", "checkpoint.zip", "application/zip", f"checkpoint:{chain}".encode())
    receipt: dict[str, Any] = {"chain": chain}
    if spec.get("answers"):
        smaller = len(spec["instructions"])
        receipt |= {"size": {"exported_bytes": 1000 - 500 * smaller}, "latency": {"ratio": 0.5}}
        kind = "kept_answers" if spec["answers"] == "kept" else "answers"
        output(folder, kind, "answers.jsonl", "application/x-ndjson", answers(spec, ways))
    output(folder, "receipt", "receipt.json", "application/json", json.dumps(receipt).encode())


def crash(how: str, folder: Path, ways: dict[str, Any]) -> None:
    """End in one of the ways that are no ordinary end."""
    print(f"crashing: {how}", file=sys.stderr, flush=True)
    if how == "untold":
        draw(folder, ways["private"], None)
    if how in ("kill", "untold"):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "memory":
        sys.stderr.write("MemoryError\n")
        os._exit(1)
    if how == "eat":
        hoard = []
        while True:
            hoard.append(bytearray(16 << 20))
    (folder / "hanging").touch()
    time.sleep(3600)


def main() -> int:
    """Run the spec; the exit code is the engine's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("spec", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", default="")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    folder: Path = given.out
    spec = json.loads(given.spec.read_text())
    ways: dict[str, Any] = {"steps": 12, "sleep": 0.02, "checkpoint_every": 3, "rows": 40, "learned": {}}
    ways |= json.loads(os.environ.get("STAND_IN", "{}"))
    ways |= spec.get("stand_in", {})
    signal.signal(signal.SIGTERM, signal.SIG_IGN if ways.get("stubborn") else ask_to_stop)
    with (folder / "starts.txt").open("a") as starts:
        starts.write(f"{os.getpid()} threads={given.threads}\n")
    if ways.get("grandchild"):
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        (folder / "grandchild.txt").write_text(str(sleeper.pid))
    step, chain = newest(folder)
    print(f"starting at step {step}", file=sys.stderr, flush=True)
    tell("phase_started", phase="train")
    crashing = ways.get("crash")
    while step < ways["steps"]:
        if stop:
            snapshot(folder, step, chain)
            tell("stopped")
            return 75
        if crashing and crashing["at"] == step and not (crashing.get("once") and (folder / "crashed").exists()):
            (folder / "crashed").touch()
            crash(crashing["how"], folder, ways)
        time.sleep(ways["sleep"])
        step += 1
        if "private" in ways:
            draw(folder, ways["private"], step)
        chain = hashlib.sha256(f"{chain}:{step}".encode()).hexdigest()
        tell("step_done", step=step, total_steps=ways["steps"], values={"train_loss": 1 / step, "learning_rate": 1e-3})
        if step % ways["checkpoint_every"] == 0:
            snapshot(folder, step, chain)
    fails = ways.get("fail") or (DIVERGED if ways["learned"].get(arm_of(spec), 1) is None else None)
    if fails:
        tell("failed", error=fails)
        return 1
    deliver(folder, chain, spec, ways)
    if ways.get("limit_missed"):
        tell("failed", error={"code": "limit_missed", "title": "A limit", "detail": "", "remedy": "", "errors": []})
        return 1
    tell("finished", result={"chain": chain, "trained_tokens": 100 * step})
    return 0


if __name__ == "__main__":
    sys.exit(main())
