"""The example of docs/openai.md runs over a real socket; only its address, its key and its pause are changed."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest
import uvicorn
from fastapi import FastAPI

from tests.app.openai.conftest import GOOD
from worker.tasks import Worker

PAGE = Path(__file__).parents[3] / "docs/openai.md"


@pytest.fixture
def address(service: FastAPI) -> Iterator[str]:
    """Where the service listens, on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(service, port=0, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_example_runs(
    address: str,
    tenant: str,
    secret_of: Callable[..., str],
    worker: Worker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    code = found[1]
    for old, new in (
        ("http://127.0.0.1:8052", address),
        ("ftw_...", secret_of(tenant)),
        ("time.sleep(5)", "time.sleep(0.1); work()"),
    ):
        assert old in code
        code = code.replace(old, new)
    assert len([line for line in code.splitlines() if line]) <= 12
    monkeypatch.chdir(tmp_path)
    Path("spam.jsonl").write_bytes(GOOD)
    with ExitStack() as files:

        def opened(name: str, mode: str) -> IO[Any]:
            return files.enter_context(Path(name).open(mode))

        exec(compile(code, str(PAGE), "exec"), {"work": worker.run_next, "open": opened})  # noqa: S102  # our own page
    status, name, owner = capsys.readouterr().out.split()
    assert (status, owner) == ("succeeded", tenant)
    assert name.startswith(f"ft:smollm2-135m:{tenant}:spam:")
    assert Path("model.zip").read_bytes().startswith(b"model:")
