"""What a limit decides: by the point estimate, and at the bad end of the interval."""

import re
from typing import Any

import pytest

from client.cli import parser
from client.commands import download
from engine.errors import LimitMissed
from engine.evaluate import Measured, wilson
from engine.limits import Figures, checks, faults, refuse_missed
from engine.spec import Limits


def figures(**changed: Any) -> Figures:
    given: dict[str, Any] = {
        "metric": Measured(0.9, 0.86, 0.93, 400),
        "metric_loss": Measured(0.01, -0.005, 0.025, 400),
        "agreement": Measured(0.98, 0.96, 0.99, 400),
        "speedup": Measured(3.0, 2.8, 3.3, 60),
        "exported_bytes": 250,
        "reference_bytes": 1000,
    }
    return Figures(**{**given, **changed})


def outcomes(limits: dict[str, Any], compresses: bool = False, **changed: Any) -> dict[str, str]:
    found = checks(Limits.model_validate(limits), figures(**changed), compresses=compresses)
    return {one["name"]: one["outcome"] for one in found}


def test_the_point_estimate_decides_without_confidence() -> None:
    limits = {
        "max_metric_loss": 0.01,
        "min_metric": 0.91,
        "min_agreement": 0.98,
        "min_speedup": 3.1,
        "max_size_bytes": 249,
    }
    assert outcomes({**limits, "max_size_ratio": 0.25}) == {
        "max_metric_loss": "passed",
        "min_metric": "missed",
        "min_agreement": "passed",
        "min_speedup": "missed",
        "max_size_bytes": "missed",
        "max_size_ratio": "passed",
    }


def test_with_confidence_the_bad_end_decides() -> None:
    at = {"confidence": 0.95}
    assert outcomes({"max_metric_loss": 0.02, **at}) == {"max_metric_loss": "undecided"}
    assert outcomes({"max_metric_loss": 0.025, **at}) == {"max_metric_loss": "passed"}
    assert outcomes({"min_metric": 0.94, **at}) == {"min_metric": "missed"}
    assert outcomes({"min_metric": 0.92, **at}) == {"min_metric": "undecided"}  # the point misses, the good end holds
    assert outcomes({"max_size_ratio": 0.3, **at}) == {"max_size_ratio": "passed"}  # bytes have no interval


def test_an_undecided_check_names_rows_that_would_decide() -> None:
    n, limit = 400, 0.97
    before = Measured(0.98, *wilson(392, n), n)
    (check,) = checks(Limits(min_agreement=limit, confidence=0.95), figures(agreement=before), compresses=False)
    assert check["outcome"] == "undecided"
    rows = check["rows_needed"]
    # With so many rows of the same share the bad end lies on the limit, as far as the interval is symmetric.
    assert wilson(round(0.98 * rows), rows)[0] == pytest.approx(limit, abs=0.004)
    (fault,) = faults([check])
    assert fault.code == "limit_undecided"
    assert f"{rows:,}" in fault.remedy


def test_no_number_of_rows_decides_a_figure_on_its_limit() -> None:
    (check,) = checks(Limits(min_metric=0.9, confidence=0.95), figures(), compresses=False)
    assert (check["outcome"], check["rows_needed"]) == ("undecided", None)


def test_no_number_of_rows_decides_a_speedup() -> None:
    raced = Measured(1.6, 1.4, 1.8, 60)
    (check,) = checks(Limits(min_speedup=1.5, confidence=0.95), figures(speedup=raced), compresses=False)
    assert (check["outcome"], check["rows_needed"]) == ("undecided", None)
    (fault,) = faults([check])
    assert "rows" not in fault.remedy


def test_bytes_are_told_to_the_last_one() -> None:
    found = checks(Limits(max_size_bytes=15_000_000), figures(exported_bytes=15_000_001), compresses=False)
    (fault,) = faults(found)
    assert fault.detail == "exported_bytes is 15,000,001; the limit is at most 15,000,000"


def test_a_plan_that_compresses_must_make_the_file_smaller() -> None:
    assert outcomes({}, compresses=True) == {"smaller_file": "passed"}
    assert outcomes({}, compresses=True, exported_bytes=1000) == {"smaller_file": "missed"}
    assert outcomes({}, compresses=False, exported_bytes=1000) == {}


def test_what_was_not_measured_does_not_pass() -> None:
    assert outcomes({"max_epsilon": 3.0, "min_robust_score": 0.5}) == {
        "max_epsilon": "undecided",
        "min_robust_score": "undecided",
    }


def test_a_fault_sets_figure_and_limit_side_by_side() -> None:
    found = checks(Limits(max_size_bytes=200), figures(), compresses=True)
    (fault,) = faults(found)
    assert (fault.pointer, fault.code) == ("/limits/max_size_bytes", "limit_missed")
    assert "250" in fault.detail
    assert "200" in fault.detail


@pytest.mark.parametrize("limits", [{}, {"max_size_bytes": 9}, {"max_size_ratio": 0.1}, {"min_speedup": 90.0}])
def test_a_language_model_is_told_of_what_serves_language_models(limits: dict[str, Any]) -> None:
    given = {"exported_bytes": 1000} if not limits else {}
    found = checks(Limits(**limits), figures(**given), compresses=not limits)
    with pytest.raises(LimitMissed) as missed:
        refuse_missed({"job": None, "quality": {"metric": "bits_per_byte"}, "limits": {"checks": found}})
    (fault,) = missed.value.faults
    assert "(43)" in fault.remedy
    assert not {"45", "47", "49"} & set(re.findall(r"\d+", fault.remedy))


def test_a_missed_limit_names_the_command_that_shows_every_figure() -> None:
    found = checks(Limits(max_size_ratio=0.1), figures(), compresses=False)
    with pytest.raises(LimitMissed) as missed:
        refuse_missed({"job": "job_1", "quality": {"metric": "accuracy"}, "limits": {"checks": found}})
    (command,) = re.findall(r"`fiftytwo (.*)`", missed.value.remedy)
    asked = parser().parse_args(command.split())
    assert (asked.run, asked.job, asked.kind) == (download, "job_1", "receipt")
    with pytest.raises(LimitMissed, match=r"size_ratio is 0\.25") as alone:
        refuse_missed({"job": None, "quality": {"metric": "accuracy"}, "limits": {"checks": found}})
    assert "outputs/receipt.json" in alone.value.remedy
