"""The page of the article's ten: it holds all of them, a run of one keeps the others, and each names its faults."""

from pathlib import Path

import pytest

from benchmarks.article import __main__ as article
from benchmarks.article.section import NotAtHand, cell, interval, text

TEN = [3, 7, 15, 22, 24, 28, 33, 40, 45, 51]


def test_the_page_in_the_repository_has_the_ten_with_faults_and_commands() -> None:
    written = article.sections_of(article.PAGE.read_text(encoding="utf-8"))
    assert list(written) == TEN == article.ORDER
    for number, part in written.items():
        section = article.SECTIONS[number]
        assert section.title in part
        assert all(f"- {fault}\n" in part for fault in section.wrong)
        assert f"python -m benchmarks.article --only {number}`" in part
        assert "| variant |" in part or "Not measured here." in part


def test_one_instruction_runs_quickly_and_leaves_the_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(article, "PAGE", tmp_path / "article.md")
    assert article.main(["--quick", "--only", "24"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("## 24. Gradient accumulation")
    assert "| ours | " in told
    assert not article.PAGE.exists()


def test_a_run_of_one_keeps_what_the_page_says_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(article, "PAGE", tmp_path / "article.md")
    kept = text(article.SECTIONS[7], "| variant | kept |")
    article.PAGE.write_text(article.page({7: kept}), encoding="utf-8")
    monkeypatch.setattr(article, "measured", lambda section, quick: text(section, "| variant | new |"))
    assert article.main(["--only", "24"]) == 0
    written = article.sections_of(article.PAGE.read_text(encoding="utf-8"))
    assert list(written) == TEN
    assert "| variant | kept |" in written[7]
    assert "| variant | new |" in written[24]
    assert "Not measured here." in written[3]


def test_data_that_is_missing_leaves_its_section_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(section: object, quick: bool) -> str:
        raise NotAtHand("sst2 is missing")

    monkeypatch.setattr(article, "PAGE", tmp_path / "article.md")
    article.PAGE.write_text(article.page({15: "## 15. Last time\n"}), encoding="utf-8")
    before = article.PAGE.read_bytes()
    monkeypatch.setattr(article, "measured", missing)
    assert article.main(["--only", "15"]) == 0
    assert article.PAGE.read_bytes() == before
    assert "15: sst2 is missing" in capsys.readouterr().err


def test_intervals_are_students_over_the_seeds() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(mean - low) == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert cell([0.5, 0.5, 0.5]) == "0.5 (all alike)"
    assert cell([0.5, None]) == "–"
