"""A small server that speaks as much of the HTTP contract as the client needs; its job ends after a few looks."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "ftw_test"
RECEIPT_KEY = "A" * 43 + "="
RECEIPT: dict[str, Any] = {
    "job": "job_1",
    "plan": [{"number": 1, "name": "text_normalization"}],
    "quality": {
        "metric": "accuracy",
        "reference": {"value": 0.98, "n": 100, "ci95": [0.94, 1.0]},
        "exported": {"value": 0.97, "n": 100, "ci95": [0.92, 0.99]},
        "loss": {"value": 0.01},
        "macro_f1": {"reference": 0.97, "exported": 0.96},
        "agreement": 0.99,
    },
    "size": {"reference_bytes": 90_000_000, "exported_bytes": 22_000_000, "ratio": 0.244},
    "latency": {"baseline": "pytorch fp32", "reference_p50_ms": 10.0, "exported_p50_ms": 3.5, "ratio": 0.35},
    "privacy": None,
    "limits": {"passed": True, "checks": [{"name": "min_metric", "limit": 0.9, "measured": 0.97, "outcome": "passed"}]},
    "warnings": ["few rows [n < 200]"],
}


PLAN = [
    {"number": 20, "name": "warmup_schedule", "parameters": {"warmup": 0.06}, "does": "Warms up."},
    {"number": 45, "name": "structured_pruning", "parameters": {"ratio": 0.4, "round_to": 8}, "does": "Prunes."},
]


class StandIn(ThreadingHTTPServer):
    """The server and what it was told.

    Args:
        package: the bytes of the model's ZIP.
        job_state: how its job ends.
    """

    daemon_threads = True

    def __init__(self, package: bytes, job_state: str = "succeeded") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.package = package
        self.job_state = job_state
        self.looks = 0
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.cut_after: int | None = None
        self.refuse_next: list[int] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def seen(self, method: str, path: str) -> list[tuple[dict[str, str], bytes]]:
        """Headers and body of every request of this method and path."""
        return [(headers, body) for verb, where, headers, body in self.requests if (verb, where) == (method, path)]

    def job(self) -> dict[str, Any]:
        """The one job, as it stands after so many looks."""
        state = "queued" if self.looks == 0 else "running" if self.looks < 3 else self.job_state
        job: dict[str, Any] = {"id": "job_1", "object": "job", "state": state, "phase": "train", "error": None}
        job["progress"] = {"step": self.looks, "total_steps": 3, "eta_seconds": 1.0}
        job["latest"] = {"train_loss": 0.5}
        job["plan"] = RECEIPT["plan"]
        job["artifacts"] = []
        if state in ("succeeded", "failed"):
            job["artifacts"] = [self.artifact(), {"id": "art_2", "kind": "receipt"}]
        if state == "failed":
            fault = {"pointer": "/limits/min_speedup", "code": "limit_missed", "detail": "1.2, not 1.5", "remedy": "47"}
            job["error"] = {"code": "limit_missed", "detail": "a limit is missed", "remedy": "mend", "errors": [fault]}
        return job

    def artifact(self) -> dict[str, Any]:
        """The model's artifact."""
        sha256 = hashlib.sha256(self.package).hexdigest()
        size = len(self.package)
        return {"id": "art_1", "kind": "model", "filename": "model.zip", "size_bytes": size, "sha256": sha256}

    def start(self) -> None:
        """Serve on a thread."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """End and close."""
        self.shutdown()
        self.server_close()


def _missing_data(body: bytes) -> list[dict[str, str]]:
    if "dataset" in json.loads(body):
        return []
    return [{"pointer": "/dataset", "code": "missing", "detail": "Field required", "remedy": "add this field"}]


_MOVES = {
    f"/v1/jobs/job_1/{move}": state
    for move, state in {"cancel": "cancelling", "pause": "pausing", "resume": "queued"}.items()
}


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a read."""
        path, query = self._begin()
        if path is None:
            return
        if path == "/v1/jobs/job_1":
            self.server.looks += 1
            self._json(200, self.server.job())
        elif path == "/v1/jobs":
            page = [{"id": f"job_{number}", "state": "queued"} for number in (1, 2)]
            rest = [{"id": "job_3", "state": "failed", "name": "[x]"}]
            after = query.get("after")
            self._json(200, {"data": rest if after else page, "has_more": not after, "last_id": "job_2"})
        elif path == "/v1/jobs/job_1/artifacts":
            self._json(200, {"data": self.server.job()["artifacts"], "has_more": False, "last_id": None})
        elif path == "/v1/jobs/job_1/receipt":
            self._json(200, RECEIPT)
        elif path == "/v1/artifacts/art_1/content":
            self._content()
        elif path == "/v1/artifacts/art_1":
            self._json(200, self.server.artifact())
        elif path == "/v1/receipt-key":
            self._json(200, {"object": "receipt_key", "algorithm": "ed25519", "public_key": RECEIPT_KEY})
        elif path == "/v1/instructions":
            one = {"number": 1, "name": "text_normalization", "band": "data", "tasks": ["a", "b"], "title": "T"}
            self._json(200, {"data": [one], "has_more": False})
        elif path == "/v1/models":
            base = {"id": "minilm-l6", "task": "a", "default_for": "a", "job": None}
            bases: list[dict[str, Any]] = [base, {"id": "art_1", "job": "job_1"}]
            self._json(200, {"data": bases, "has_more": False, "last_id": "art_1"})
        elif path == "/v1/datasets":
            self._json(200, {"data": [{"id": "ds_1", "labels": ["a", "b"]}], "has_more": False, "last_id": "ds_1"})
        else:
            self._json(404, {"title": "Not found", "status": 404, "detail": f"no {path}", "errors": []})

    def do_POST(self) -> None:
        """Answer a write."""
        path, query = self._begin()
        body = self.server.requests[-1][3]
        if path is None:
            return
        if path == "/v1/datasets":
            self._json(201, {"id": "ds_1", "status": "ready", "rows": 4, "labels": ["ham", "spam"]})
        elif path == "/v1/jobs" and b"bad_task" in body:
            fault = {"pointer": "/task", "code": "unknown", "detail": "no such task", "remedy": "text_classification"}
            other = {"pointer": "/model", "code": "unknown", "detail": "no such model", "remedy": "minilm-l6"}
            self._refuse([fault, other, *_missing_data(body)])
        elif path == "/v1/jobs" and _missing_data(body):
            self._refuse(_missing_data(body))
        elif path == "/v1/jobs" and b"bad_for_this_data" in body and b"ds_1" in body:
            self._refuse([{"pointer": "/name", "code": "unfit", "detail": "no such group", "remedy": "author"}])
        elif path == "/v1/jobs" and query.get("dry_run"):
            self._json(200, {**json.loads(body), "plan": PLAN, "estimate": {"seconds": 83, "file_bytes": 91_655_944}})
        elif path == "/v1/jobs":
            self._json(202, self.server.job())
        elif path in _MOVES:
            self._json(202, {"id": "job_1", "state": _MOVES[path]})
        else:
            self._json(404, {"title": "Not found", "status": 404, "detail": f"no {path}", "errors": []})

    def _refuse(self, faults: list[dict[str, str]]) -> None:
        detail = "; ".join(fault["detail"] for fault in faults)
        self._json(422, {"title": "Wrong choices", "status": 422, "detail": detail, "errors": faults})

    def do_DELETE(self) -> None:
        """Answer a delete."""
        path, _ = self._begin()
        if path is not None:
            self.send_response(204)
            self.end_headers()

    def _begin(self) -> tuple[str | None, dict[str, str]]:
        split = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, split.path, headers, body))
        if self.server.refuse_next:
            self._json(self.server.refuse_next.pop(0), {"title": "Later"}, **{"Retry-After": "0"})
            return None, {}
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self._json(401, {"title": "No valid key", "status": 401, "detail": "no valid key", "errors": []})
            return None, {}
        return split.path, {name: values[0] for name, values in parse_qs(split.query).items()}

    def _json(self, status: int, content: dict[str, Any], **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _content(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        body = self.server.package[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cut_after is not None:
            body, self.server.cut_after = body[: self.server.cut_after], None
            self.close_connection = True
        self.wfile.write(body)
