"""Stands in for `python -m engine` where only the service is measured: it has finished as soon as it starts."""

import json
from datetime import UTC, datetime

if __name__ == "__main__":
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"event": "finished", "at": at, "result": {}}), flush=True)
