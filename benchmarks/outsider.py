"""What a receipt's steps spend by dp-accounting alone: the figure that anyone can work out without this project's code.

`python -m benchmarks.outsider receipt.json` prints it beside the receipt's. Reads the section `privacy` and imports
nothing of the engine, the service or the client: `sampling_rate`, `noise_multiplier`, `steps`, `sampling` and `delta`
are all that is needed.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dp_accounting
from dp_accounting.pld import pld_privacy_accountant


def epsilon(privacy: Mapping[str, Any]) -> float:
    """Epsilon of one receipt's recorded steps at its own delta, as the library gives it."""
    return composed([privacy], float(privacy["delta"]))


def composed(releases: Sequence[Mapping[str, Any]], delta: float) -> float:
    """Epsilon at `delta` of several receipts' steps together: Gaussian releases, one unit added or removed.

    Raises:
        ValueError: a receipt claims a sampling that no accountant here may amplify.
    """
    ledger = pld_privacy_accountant.PLDAccountant()
    for one in releases:
        ledger.compose(dp_accounting.SelfComposedDpEvent(_release(one), int(one["steps"])))
    return float(ledger.get_epsilon(delta))


def _release(privacy: Mapping[str, Any]) -> Any:
    noised = dp_accounting.GaussianDpEvent(float(privacy["noise_multiplier"]))
    rate = float(privacy["sampling_rate"])
    if privacy["sampling"] == "poisson" and rate < 1:
        return dp_accounting.PoissonSampledDpEvent(rate, noised)
    if rate == 1:
        return noised
    raise ValueError(f"sampling {privacy['sampling']!r} at rate {rate:g} amplifies nothing that could be counted on")


def in_hundredths(value: float) -> float:
    """Rounded up to two decimals, as receipts tell an epsilon."""
    return math.ceil(value * 100) / 100


def main(words: Sequence[str]) -> int:
    """Print both figures; exit code 1 where they differ."""
    privacy = json.loads(Path(words[0]).read_text(encoding="utf-8"))["privacy"]
    found = epsilon(privacy)
    print(f"dp-accounting: {found:.6f}, in hundredths {in_hundredths(found):.2f}; the receipt: {privacy['epsilon']}")
    return 0 if in_hundredths(found) == privacy["epsilon"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
