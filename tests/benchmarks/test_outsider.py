"""The outsider's figure: by no code of this project, right where a closed form is known, and the receipts' own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from benchmarks import outsider
from benchmarks.texts import ROOT
from engine.accounting import PrivacyEvent
from engine.accounting import epsilon as ours

RECORDED: dict[str, Any] = {
    "sampling_rate": 0.05,
    "noise_multiplier": 1.1,
    "steps": 60,
    "sampling": "poisson",
    "delta": 1e-5,
}


def test_it_imports_nothing_of_this_project() -> None:
    watch = "import sys, benchmarks.outsider; print(*{name.split('.')[0] for name in sys.modules})"
    told = subprocess.run([sys.executable, "-c", watch], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(told.stdout.split())
    assert "dp_accounting" in loaded
    assert loaded & {"engine", "app", "worker", "client", "torch"} == set()


@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_one_release_is_the_analytic_gaussian_mechanism(sigma: float) -> None:
    """Balle and Wang 2018, theorem 8, with a sensitivity of one."""

    def delta(epsilon: float) -> float:
        left, right = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
        return float(norm.cdf(left) - np.exp(epsilon) * norm.cdf(right))

    exact = brentq(lambda one: delta(one) - 1e-5, 0.01, 30)
    once = {**RECORDED, "sampling_rate": 1.0, "noise_multiplier": sigma, "steps": 1, "sampling": "none"}
    assert exact <= outsider.epsilon(once) <= exact + 1e-3


def test_steps_and_receipts_compose() -> None:
    few, more = {**RECORDED, "steps": 20}, {**RECORDED, "steps": 40}
    whole = outsider.epsilon(RECORDED)
    assert outsider.composed([few, more], 1e-5) == pytest.approx(whole, abs=1e-6)
    assert outsider.epsilon(few) < outsider.epsilon(more) < whole
    event = PrivacyEvent(q=0.05, sigma=1.1, count=60)
    assert outsider.in_hundredths(whole) == ours([event], 1e-5)


def test_a_sampling_that_amplifies_nothing_is_no_figure() -> None:
    with pytest.raises(ValueError, match="shuffled"):
        outsider.epsilon({**RECORDED, "sampling": "shuffled"})


def test_the_command_says_whether_a_receipt_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = outsider.in_hundredths(outsider.epsilon(RECORDED))
    for claimed, code in ((told, 0), (told - 0.01, 1)):
        path = tmp_path / "receipt.json"
        path.write_text(json.dumps({"privacy": {**RECORDED, "epsilon": claimed}}))
        assert outsider.main([str(path)]) == code
    assert f"in hundredths {told:.2f}" in capsys.readouterr().out
