"""What tests of data sets share: rows, how they are uploaded, what is stored of them."""

import json
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from app.settings import Settings

ROWS = "".join(json.dumps({"text": f"row {i}", "label": "ab"[i % 2]}) + "\n" for i in range(6)).encode()


def upload(client: TestClient, content: bytes = ROWS, filename: str = "rows.jsonl", **fields: Any) -> Any:
    headers = {"Idempotency-Key": fields.pop("idempotency_key")} if "idempotency_key" in fields else {}
    data = {"task": "text_classification", **fields}
    return client.post("/v1/datasets", files={"file": (filename, content)}, data=data, headers=headers)


def stored(settings: Settings) -> list[Path]:
    """Every file of the service but those of the database and the key of receipts."""
    files = (path for path in settings.data_dir.rglob("*") if path.is_file() and path != settings.receipt_key)
    return [path for path in files if "fiftytwo.db" not in path.name]
