"""How numbers, sizes, durations and moments read, and why a metric is absent."""

from datetime import UTC, datetime, timedelta

import pytest

from app.dashboard import reading, wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12_345, "12\u202f345"),
        (0.98251, "0.9825"),
        (0.002, "0.002"),
        (1234.5, "1\u202f234"),
        (3.14159e-7, "3.14e-7"),
        (-0.25, "-0.25"),
        (5_000_000.5, "5e6"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(17, "17 B"), (452_909, "453 kB"), (22_713_216, "22.7 MB"), (5e9, "5.0 GB"), (None, "–")]
)
def test_sizes(value: float | None, text: str) -> None:
    assert wording.size(value) == text.replace(" ", wording.THIN)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0552, "55·ms"),
        (4.25, "4.2·s"),
        (59.4, "59·s"),
        (60, "1·min"),
        (250, "4·min 10·s"),
        (7_500, "2·h 5·min"),
        (273_600, "3·d 4·h"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text.replace("·", wording.THIN)


def test_moments() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    told = [wording.ago(now - timedelta(seconds=one), now) for one in (3, 42, 300, 7200, 3 * 86_400, 40 * 86_400)]
    expected = ["just now", "42·s ago", "5·min ago", "2·h ago", "3·d ago", "17 Oct 2026"]
    assert told == [one.replace("·", wording.THIN) for one in expected]
    assert wording.moment("2026-11-26T12:00:09.500Z") == "26 Nov 2026, 12:00:09 UTC"


def test_values_of_any_kind() -> None:
    assert [wording.value(one) for one in (True, None, [1, 2.5], {"a_b": 1}, "x", [])] == [
        "yes",
        "–",
        "1, 2.5",
        "a b 1",
        "x",
        "none",
    ]
    assert [wording.signed(one) for one in (0.0, 0.01, -0.02)] == ["±0", "+0.01", "−0.02"]


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({}, "train_loss", "Comes with the first step."),
        ({"latest": {"train_loss": 1.0}}, "valid_loss", "Comes at the end of an epoch."),
        ({"state": "failed"}, "train_loss", "The run did not tell of it."),
        ({"kind": "evaluate"}, "train_loss", "This evaluate job takes no training steps."),
        (
            {"kind": "compress"},
            "train_loss",
            "A compress job keeps no metrics of the steps of its recovery; the receipt has what came of them.",
        ),
        ({"plan": [{"number": 37}]}, "train_loss", "Kept back: it is a figure of private rows."),
        ({"plan": [{"number": 37}]}, "epsilon", "Comes with the first step."),
    ],
)
def test_an_absent_metric_has_its_reason(changes: dict[str, object], name: str, reason: str) -> None:
    job = {"kind": "train", "task": "text_classification", "state": "running", "latest": {}, "plan": []} | changes
    assert {one.name: one.absent for one in reading.metrics(job)}[name] == reason


@pytest.mark.parametrize(
    ("figure", "name", "text"),
    [
        (452_909, "smaller_file", "453 kB"),
        (2_000_000, "max_size_bytes", "2.0 MB"),
        (1.31, "min_speedup", "1.31 ×"),
        (0.97, "min_metric", "0.97"),
        (None, "max_size_bytes", "–"),
    ],
)
def test_limits_have_their_unit(figure: float | None, name: str, text: str) -> None:
    assert wording.limit(figure, name) == text.replace(" ", wording.THIN)


def test_one_of_something_is_no_plural() -> None:
    assert [wording.counted(count, "row") for count in (0, 1, 2, 1200)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1\u202f200 rows",
    ]


def test_negative_numbers_in_a_sentence_have_a_minus() -> None:
    told = "differs by -0.0024 (-0.0139 to +0.0091) in test-2 of 2026-11-26"
    assert wording.with_minus(told) == "differs by −0.0024 (−0.0139 to +0.0091) in test-2 of 2026-11-26"


def test_advice_names_the_page_for_the_request() -> None:
    assert wording.on_pages("GET /v1/datasets lists yours") == "the page Data sets lists yours"
    assert wording.on_pages("GET /v1/jobs/{id}/artifacts lists yours") == "GET /v1/jobs/{id}/artifacts lists yours"


def test_tasks_are_called_as_people_do() -> None:
    assert wording.words("causal_lm") == "causal language model"
    assert wording.words("length_bucketing") == "length bucketing"
