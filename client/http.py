"""Talk to a fiftytwo server: submit, wait, follow events, download. Knows the HTTP contract, not the command line.

A call that may be repeated without harm is repeated: every GET, and every POST because it carries an Idempotency-Key.
"""

import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from client.errors import BadPackage, BadUsage, Refused, Unreachable

Json = dict[str, Any]
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
WAIT_SECONDS = 20
PATIENCE_SECONDS = 600.0
_AGAIN = frozenset({429, 502, 503, 504})


class Client:
    """One server, one key.

    Args:
        server: the server's address, such as http://127.0.0.1:8052.
        key: the API key.
        attempts: how often a call is tried before the server counts as unreachable.
        pause: first pause between attempts in seconds; it doubles each time.
        transport: where requests go instead of the network.
    """

    def __init__(
        self,
        server: str,
        key: str,
        *,
        attempts: int = 5,
        pause: float = 0.5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise BadUsage(f"the server's address {server!r} is no http address", remedy="--server http://HOST:PORT")
        self.server = server.rstrip("/")
        self.attempts = attempts
        self.pause = pause
        # The long poll answers within WAIT_SECONDS; uploads and downloads of any size never pause this long.
        timeout = httpx.Timeout(60, connect=10)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.server, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Json:
        """GET an object; parameters that are None are left out."""
        params = {name: value for name, value in query.items() if value is not None}
        return self._object(lambda: self._http.build_request("GET", path, params=params))

    def post(self, path: str, body: Json | None = None, **query: Any) -> Json:
        """POST an object once, however often it takes to get the answer."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._object(lambda: self._http.build_request("POST", path, json=body, params=query, headers=headers))

    def put(self, path: str, content: Json | bytes) -> Json:
        """PUT an object, or bytes as they are; to send it again changes nothing."""
        raw = isinstance(content, bytes)
        sent: Json = (
            {"content": content, "headers": {"Content-Type": "application/octet-stream"}} if raw else {"json": content}
        )
        return self._object(lambda: self._http.build_request("PUT", path, **sent))

    def delete(self, path: str) -> None:
        """DELETE an object."""
        self._send(lambda: self._http.build_request("DELETE", path))

    def listed(self, path: str, *, at_most: int | None = None, **query: Any) -> Iterator[Json]:
        """Every object of a list, page by page."""
        given, after = 0, None
        while True:
            limit = min(200, at_most - given) if at_most is not None else 200
            page = self.get(path, limit=limit, after=after, **query)
            yield from page["data"]
            given += len(page["data"])
            if not page.get("has_more") or not page["data"] or (at_most is not None and given >= at_most):
                return
            after = page["last_id"]

    def upload(self, path: Path, fields: Mapping[str, str]) -> Json:
        """Upload a data set; `fields` as in `POST /v1/datasets` (task, name, text_column, ...)."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        try:
            with ExitStack() as opened:

                def request() -> httpx.Request:
                    file = opened.enter_context(path.open("rb"))
                    upload = {"file": (path.name, file)}
                    return self._http.build_request("POST", "/v1/datasets", data=fields, files=upload, headers=headers)

                return self._object(request)
        except OSError as error:
            raise BadUsage(f"cannot read {path}: {error.strerror}", remedy="check the path") from error

    def job(self, job_id: str, *, wait_seconds: int | None = None) -> Json:
        """A job; with `wait_seconds` the answer comes when its state changes, or after that time."""
        return self.get(f"/v1/jobs/{job_id}", wait_seconds=wait_seconds)

    def watch(
        self,
        job_id: str,
        *,
        every: float = 1.0,
        wait_seconds: int | None = None,
        patience: float = PATIENCE_SECONDS,
        away: Callable[[], None] = lambda: None,
    ) -> Iterator[Json]:
        """The job again and again until it has ended; the last one is terminal.

        Args:
            every: seconds between two looks.
            wait_seconds: how long a look after the first may wait for the state to change.
            patience: for so many seconds a server that has answered before may be away, as while it is restarted.
            away: called again and again while it is.
        """
        answered: float | None = None
        held: int | None = None
        while True:
            try:
                job = self.job(job_id, wait_seconds=held)
            except Unreachable:
                if answered is None or time.monotonic() - answered > patience:
                    raise
                away()
                continue
            answered, held = time.monotonic(), wait_seconds
            yield job
            if job["state"] in TERMINAL:
                return
            time.sleep(every)

    def wait(self, job_id: str) -> Json:
        """The job once it has ended."""
        *_, job = self.watch(job_id, every=0, wait_seconds=WAIT_SECONDS)
        return job

    def artifacts(self, job_id: str) -> list[Json]:
        """The artifacts of a job."""
        return list(self.listed(f"/v1/jobs/{job_id}/artifacts"))

    def artifact(self, job_id: str, kind: str) -> Json:
        """The job's artifact of one kind.

        Raises:
            BadUsage: the job has none.
        """
        found = self.artifacts(job_id)
        for one in found:
            if one["kind"] == kind:
                return one
        kinds = ", ".join(sorted({str(one["kind"]) for one in found}))
        remedy = "name one of these with --kind" if kinds else f"fiftytwo watch {job_id}"
        raise BadUsage(f"{job_id} has no artifact of kind {kind!r}; it has: {kinds or 'none yet'}", remedy=remedy)

    def download(self, artifact: Mapping[str, Any], target: Path, seen: Callable[[int], None] = lambda _: None) -> Path:
        """Download an artifact's content to `target`; goes on where an earlier attempt broke off.

        Args:
            artifact: as the server lists it; its sha256 and size are checked.
            target: the file; until it is whole it lies beside it with `.part` at the end.
            seen: told the number of bytes on disk, now and then.

        Raises:
            BadPackage: the bytes on disk do not have the artifact's sha256.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        size, sha256 = int(artifact["size_bytes"]), str(artifact["sha256"])
        # The hash in the name keeps the rest of another artifact from being taken for the start of this one.
        part = target.with_name(f"{target.name}.{sha256[:12]}.part")
        if target.is_file() and target.stat().st_size == size and _sha256(target) == sha256:
            seen(size)
            return target
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        for attempt in range(self.attempts):
            if part.exists() and part.stat().st_size == size:
                break
            if attempt:
                self._rest(attempt)
            try:
                self._fetch(artifact, part, seen)
            except httpx.TransportError as error:
                if attempt + 1 == self.attempts:
                    raise self._unreachable(error) from error
        if size == 0:
            part.touch()
        if not part.exists() or _sha256(part) != sha256:
            part.unlink(missing_ok=True)
            raise BadPackage(f"{artifact['filename']} arrived damaged (sha256 differs)", remedy="download it again")
        os.replace(part, target)
        return target

    def _fetch(self, artifact: Mapping[str, Any], part: Path, seen: Callable[[int], None]) -> None:
        """One attempt: ask for the missing bytes and append them."""
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{artifact["sha256"]}"'}
        with self._http.stream("GET", f"/v1/artifacts/{artifact['id']}/content", headers=headers) as response:
            if response.status_code in _AGAIN:
                raise httpx.ReadError(f"the server answered {response.status_code}")
            if response.status_code not in (200, 206):
                response.read()
                raise self._strange(response) if response.is_redirect else _refusal(response)
            with part.open("ab" if response.status_code == 206 else "wb") as sink:
                # Unbuffered: what has arrived before the line breaks is on disk.
                for block in response.iter_raw():
                    sink.write(block)
                    seen(sink.tell())

    def _send(self, build: Callable[[], httpx.Request]) -> httpx.Response:
        """Send until an answer comes that is worth keeping."""
        for attempt in range(1, self.attempts + 1):
            try:
                response = self._http.send(build())
            except httpx.TransportError as error:
                if attempt == self.attempts:
                    raise self._unreachable(error) from error
                self._rest(attempt)
                continue
            if response.status_code not in _AGAIN:
                break
            if attempt == self.attempts:
                raise _refusal(response) if response.status_code == 429 else self._unreachable(_refusal(response))
            self._rest(attempt, response.headers.get("Retry-After"))
        if response.status_code >= 400:
            raise _refusal(response)
        if response.status_code >= 300:
            raise self._strange(response)
        return response

    def _object(self, build: Callable[[], httpx.Request]) -> Json:
        """The JSON object that a server of ours answers with."""
        response = self._send(build)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._strange(response)
        return answer

    def _rest(self, attempt: int, retry_after: str | None = None) -> None:
        asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        # Spread, so that many clients of a restarted server do not come back in the same moment.
        time.sleep(min(30.0, max(asked, self.pause * 2 ** (attempt - 1))) * random.uniform(0.8, 1.2))

    def _strange(self, response: httpx.Response) -> Unreachable:
        """What a proxy or another service gives."""
        elsewhere = response.headers.get("location")
        told = f"sends on to {elsewhere}" if elsewhere else "answers without JSON"
        return Unreachable(
            f"{self.server} is not the API of fiftytwo: it {told} ({response.status_code})",
            remedy="give the API's own address with --server (or FIFTYTWO_SERVER), no proxy's page and no other scheme",
        )

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"no answer from {self.server}: {error or type(error).__name__}",
            remedy="check --server (or FIFTYTWO_SERVER), and that `fiftytwo serve` runs there",
        )


def _refusal(response: httpx.Response) -> Refused:
    """The problem in a response, or one made of whatever came instead."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"title": f"{response.reason_phrase or 'Error'}", "detail": response.text[:200]}
    if response.status_code == 401 and not problem.get("remedy"):
        problem["remedy"] = "fiftytwo login --server URL --key KEY, or set FIFTYTWO_KEY"
    return Refused(response.status_code, problem)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
