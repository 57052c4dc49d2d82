"""`fiftytwo demo`: the path of one job, shown with real data on a server of its own.

A user of the service like any other: it talks HTTP to a child process `fiftytwo serve` and knows nothing of its inside.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from client import tables
from client.archive import unpack
from client.artifact import Package
from client.errors import BadUsage, ClientError, ExitCode
from client.http import Client, Json
from client.progress import follow
from engine.orphans import die_with

TASK = "image_classification"
# Eight of the fifty-two: sharding, split, schedule, clipping, accumulation, pruning, training in 8 bits and its ranges.
# Without 26 (autocast): on a processor that only emulates bfloat16 it would make the demo slower, not faster.
INSTRUCTIONS = [3, 9, 20, 22, 24, 45, 49, 51]
SPEC: Json = {
    "kind": "train",
    "task": TASK,
    "name": "handwritten digits",
    "instructions": INSTRUCTIONS,
    "training": {"epochs": 8, "batch_size": 32, "learning_rate": 0.002, "seed": 7},
    "limits": {"min_metric": 0.9, "max_metric_loss": 0.03, "max_size_ratio": 0.5},
}
_STOP_SECONDS = 60


def demo(*, json_to: str | None = None, keep: Path | None = None) -> ExitCode:
    """Serve, upload, train, prove, download, predict.

    Args:
        json_to: where the receipt goes as JSON; "-" is stdout, which then carries nothing else.
        keep: a folder that keeps the server's data, the model and the receipt.

    Returns:
        OK only if the job succeeded and its receipt's limits hold.
    """
    console = Console(highlight=False, stderr=json_to == "-")
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise BadUsage(f"{keep} is not empty", remedy="--keep with a folder that is new")
    with ExitStack() as ends:
        folder = keep or Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="fiftytwo-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        address, key = ends.enter_context(_server(folder / "server"))
        console.print(f"a server of our own listens on {address}")
        client = ends.enter_context(Client(address, key))
        job = _train(console, client, folder)
        kinds = {one["kind"] for one in job["artifacts"]}
        receipt = client.get(f"/v1/jobs/{job['id']}/receipt") if "receipt" in kinds else None
        if receipt is not None:
            tables.receipt(console, receipt)
            _write(receipt, json_to, folder)
        if "model" in kinds:
            _predict(console, client, job, folder)
        if job["state"] != "succeeded" or receipt is None or not receipt["limits"]["passed"]:
            error = job.get("error") or {}
            raise ClientError(
                f"the job {job['state']}: {error.get('detail') or error.get('title')}",
                # Not the job's own remedy: its server ends here, so there is nothing left to download or to submit to.
                remedy="fiftytwo demo --keep DIR keeps the receipt, the model and the server's logs",
            )
        left = f"everything is in {keep}" if keep else "server and model are gone again, --keep DIR leaves them"
        console.print(
            f"the receipt's limits hold; {left}\n  next: fiftytwo serve, with data of your own", soft_wrap=True
        )
        return ExitCode.OK


def pictures() -> tuple[npt.NDArray[np.uint8], list[int]]:
    """scikit-learn's handwritten digits: (1797, 8, 8) grey values of 0 to 240, and the digit of each."""
    digits = load_digits()
    return (digits.images * 15).astype(np.uint8), [int(digit) for digit in digits.target]


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_zip(path: Path) -> int:
    """Write the digits as a ZIP of PNG files, a folder a class; gives their number."""
    images, digits = pictures()
    with zipfile.ZipFile(path, "w") as archive:
        for number, (pixels, digit) in enumerate(zip(images, digits, strict=True)):
            archive.writestr(f"{digit}/{number:04}.png", png(pixels))
    return len(digits)


@contextmanager
def _server(data_dir: Path) -> Iterator[tuple[str, str]]:
    """A server on a free port: its address and the key of its first admin."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = data_dir / "serve.log"
    command = [sys.executable, "-P", "-m", "client.cli", "serve", "--json", "--port", "0", "--data-dir", str(data_dir)]
    # The demo is about this machine: settings of a real installation must not lead it elsewhere.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FIFTYTWO_")}
    key = environment["FIFTYTWO_BOOTSTRAP_KEY"] = "demo-" + os.urandom(16).hex()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=output,
            process_group=0,
            preexec_fn=partial(die_with, os.getpid()),
        )
    try:
        yield _address(process, log), key
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        fact = json.loads(line)
        if "address" in fact:
            return str(fact["address"])
    tail = log.read_text(errors="replace")[-2000:]
    raise ClientError(
        f"the server did not start: {tail}", remedy="read the message above; `fiftytwo serve` shows it too"
    )


def _train(console: Console, client: Client, folder: Path) -> Json:
    """Upload the digits and follow one job to its end."""
    archive = folder / "digits.zip"
    count = write_zip(archive)
    dataset = client.upload(archive, {"task": TASK, "name": "handwritten digits"})
    console.print(
        f"uploaded {count} pictures as {dataset['id']}: {dataset['rows']} rows, {len(dataset['labels'])} classes"
    )
    job = client.post("/v1/jobs", {**SPEC, "dataset": dataset["id"]})
    console.print(f"submitted {job['id']}; its plan, in the order it will act:")
    tables.rows(console, job["plan"], ("number", "name", "hooks"))
    return follow(client, job["id"], console)


def _write(receipt: Json, json_to: str | None, folder: Path) -> None:
    text = json.dumps(receipt, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    (folder / "receipt.json").write_text(text, encoding="utf-8")
    if json_to == "-":
        sys.stdout.write(text)
    elif json_to is not None:
        Path(json_to).write_text(text, encoding="utf-8")


def _predict(console: Console, client: Client, job: Json, folder: Path) -> None:
    """Download the model and let it read one picture, with nothing of the server in between."""
    artifact = client.artifact(job["id"], "model")
    model = folder / "model"
    unpack(client.download(artifact, model / artifact["filename"]), model)
    images, digits = pictures()
    (answer,) = Package(model).predict([png(images[-1])])
    for row in images[-1]:
        console.print("  " + "".join(" ░▒▓█"[min(4, int(value) // 50)] * 2 for value in row), style="dim")
    console.print(f"the downloaded model reads {answer.label} (score {answer.score:.3f}); it is {digits[-1]}")
