"""The figures of the README, from the receipt of one recorded run of the demo. Types in no number."""

import json
from collections.abc import Mapping
from typing import Any

from docs.markdown import ROOT, table

DEMO = ROOT / "docs" / "demo.json"


def figures() -> str:
    """What the receipt of the recorded run says, as a table; a sentence where no run is recorded."""
    if not DEMO.is_file():
        return "Run `make docs` to record one."
    receipt = json.loads(DEMO.read_text(encoding="utf-8"))
    quality, size, latency = receipt["quality"], receipt["size"], receipt["latency"]
    metric, data, where = quality["metric"], receipt["inputs"]["datasets"], receipt["environment"]
    rows = [
        (
            f"{metric} on {quality['exported']['n']} test rows",
            *(_score(quality[one]) for one in ("reference", "exported")),
        ),
        ("macro F1", *(f"{quality['macro_f1'][one]:.3f}" for one in ("reference", "exported"))),
        ("parameters", *(f"{size['parameters'][one]:,}" for one in ("reference", "exported"))),
        ("size of the weights file", *(f"{size[f'{one}_bytes'] / 1000:,.1f} kB" for one in ("reference", "exported"))),
        (
            f"one input, {latency['threads']} thread, median",
            *(f"{latency[f'{one}_p50_ms']:.2f} ms" for one in ("reference", "exported")),
        ),
    ]
    plan = ", ".join(f"{one['number']} {one['name']}" for one in receipt["plan"])
    checks = "; ".join(
        f"`{one['name']}` {one['limit']:g}, measured {one['measured']:.3g}: {one['outcome']}"
        for one in receipt["limits"]["checks"]
    )
    return "\n\n".join(
        [
            f"`make docs` ran the demo on {sum(one['rows'] for one in data):,} handwritten digits and wrote this"
            f" from its [receipt](docs/demo.json). The plan: {plan}.",
            table(("", f"reference ({latency['baseline']})", "the file that ships"), rows),
            "The reference of size and time is the untouched architecture, that of quality the trained (and pruned)"
            f" weights without the file's number format. {quality['agreement']:.1%} of the answers are the same."
            f" Limits: {checks}. Measured with"
            f" PyTorch {where['torch']} on {where['device']}, seed {where['seed']}.",
        ]
    )


def _score(score: Mapping[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{score['value']:.3f} ({low:.3f} to {high:.3f})"
