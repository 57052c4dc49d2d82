"""The walk of the issue's lines: its page, what counts as missed, and the parts that its verdicts rest on."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks import outsider, shared_data
from benchmarks.acceptance import __main__ as acceptance
from benchmarks.acceptance import checking, ridge, rounds, simulation
from benchmarks.acceptance.language import excerpt
from benchmarks.acceptance.page import page, section, sections_of, short_json, shown
from benchmarks.acceptance.step import Finding, Step, Walked
from benchmarks.acceptance.walk import TAKEN, Done, Failed, Walk, refusal
from benchmarks.article.section import NotAtHand
from client import canonical_json
from client.http import Client
from client.signature import ensure_key, public_key, sign

GOOD = Finding("it works", {"kind": "train", "dataset": "ds_1"}, {"figure": 0.52341, "rows": 1200}, True, 3.0)
BAD = Finding("it is fast", None, {"why": "a | b"}, False, 2.0)


def step_of(*findings: Finding | Exception) -> Step:
    def walk(_: Walk) -> Iterator[Finding]:
        for one in findings:
            if isinstance(one, Exception):
                raise one
            yield one

    return Step("one", "a step", "what the issue says", walk)


def taken(step: Step) -> Walked:
    """Walked without a server, a second between two looks at the clock."""
    ticks = iter(range(100))
    place: Any = None
    return acceptance.take(step, place, clock=lambda: float(next(ticks)))


# The page.


def test_a_section_tells_what_was_sent_what_came_back_and_whether_it_holds() -> None:
    text = section(Walked(step_of(), (GOOD, BAD)), "1 May 2026, commit abc")
    assert text.startswith("## one: a step\n\n**To show:** what the issue says.")
    assert '### Held: it works\n\n```json\n{"kind": "train", "dataset": "ds_1"}\n```' in text
    assert "| figure | 0.5234 |\n| rows | 1,200 |" in text
    assert "### Missed: it is fast\n\n| what came back |" in text
    assert "| why | a \\| b |" in text
    assert "5 seconds, 1 May 2026, commit abc; `python -m benchmarks.acceptance --only one`." in text


def test_a_page_keeps_the_sections_of_other_walks_and_lists_every_line() -> None:
    step, other = step_of(), Step("two", "another", "more", step_of().walk)
    first = page({"one": section(Walked(step, (GOOD, BAD)), "today")}, [step, other])
    assert "| [one](#one-a-step) | it works | Held |\n| [one](#one-a-step) | it is fast | Missed |" in first
    assert "| [two](#two-another) | it was not walked yet | Not walked |" in first
    again = page({**sections_of(first), "two": section(Walked(other, (GOOD,)), "later")}, [step, other])
    assert sections_of(again)["one"] == sections_of(first)["one"]
    assert "| [two](#two-another) | it works | Held |" in again
    assert list(sections_of(again)) == ["one", "two"]


def test_the_page_in_the_repository_has_every_step() -> None:
    written = sections_of(acceptance.PAGE.read_text(encoding="utf-8"))
    assert list(written) == list(acceptance.STEPS)
    for name, text in written.items():
        assert text.startswith(f"## {name}: {acceptance.STEPS[name].title}\n")
        assert f"**To show:** {acceptance.STEPS[name].asks}." in text


def test_values_are_told_in_few_signs() -> None:
    assert shown([0.123456, 1e-5, 7]) == "0.1235, 1e-05, 7"
    assert shown({"a": None, "b": True}) == "a null; b true"
    assert (shown([]), shown("as it is"), shown(1_234_567)) == ("none", "as it is", "1,234,567")
    long = {"first": "x" * 60, "second": ["y" * 60]}
    assert json.loads(short_json(long)) == long
    assert short_json(long).count("\n") == 3


# Going through a step.


def test_a_step_that_breaks_off_is_missed_and_keeps_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    walked = taken(step_of(GOOD, Failed("the job failed: no rows")))
    assert not walked.held
    assert [one.held for one in walked.findings] == [True, False]
    assert walked.findings[-1].came == {"it broke off": "Failed: the job failed: no rows"}
    assert [one.seconds for one in walked.findings] == [1.0, 1.0]
    assert "MISSED: the step goes through to its end" in capsys.readouterr().out
    lacking = taken(step_of(GOOD, KeyError("epsilon")))
    assert lacking.findings[-1].came == {"it broke off": "KeyError: 'epsilon'"}


def test_missing_data_is_no_miss_and_says_what_is_missing() -> None:
    walked = taken(step_of(NotAtHand("emoji is missing")))
    assert walked.held
    assert walked.absent == "emoji is missing"
    assert "### Not walked: emoji is missing" in section(walked, "today")


@pytest.mark.parametrize(("findings", "held"), [((GOOD,), True), ((GOOD, BAD), False)])
def test_a_missed_line_is_a_missed_step(findings: tuple[Finding, ...], held: bool) -> None:
    assert taken(step_of(*findings)).held is held


def test_a_refusal_is_told_with_its_fault_and_what_is_left() -> None:
    fault = {"pointer": "/dataset", "code": "budget_exhausted", "detail": "too much", "remedy": "less", "left": 0.5}
    problem = {"title": "Conflict", "detail": "in short", "code": "budget_exhausted"}
    answers = iter([{**problem, "errors": [fault]}, {**problem, "remedy": "wait"}])
    transport = httpx.MockTransport(lambda _: httpx.Response(409, json=next(answers)))
    with Client("http://x", "key", transport=transport) as client:
        said = [refusal(lambda: client.post("/v1/jobs", {})) for _ in range(2)]
    assert said[0] == {"status": 409, **{name: fault[name] for name in ("code", "detail", "remedy", "left")}}
    assert said[1] == {"status": 409, "code": "budget_exhausted", "detail": "in short", "remedy": "wait"}
    assert refusal(lambda: None) == TAKEN


# What verdicts rest on.


def test_a_mean_of_updates_is_that_of_one_after_the_other() -> None:
    sent = [rounds.update_of(number) for number in range(30)]
    total = np.zeros(4 + 4 * 384)
    norms = []
    for one in sent:
        whole = np.concatenate([one["classifier.bias"].ravel(), one["classifier.weight"].ravel()]).astype(np.float64)
        norms.append(float(np.linalg.norm(whole)))
        total += whole * min(1.0, rounds.CLIP / norms[-1])
    mean = rounds.mean_of(sent)
    found = np.concatenate([mean["classifier.bias"].ravel(), mean["classifier.weight"].ravel()])
    assert np.abs(found - total / rounds.EXPECTED).max() < 1e-12
    assert 0.2 < np.mean(np.array(norms) > rounds.CLIP) < 0.8


@pytest.mark.parametrize(("spread", "epsilon", "held"), [(1.0, 1.0, True), (0.8, 1.0, False), (1.0, 0.9, False)])
def test_a_round_holds_with_the_noise_and_the_epsilon_that_it_tells(
    spread: float, epsilon: float, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outsider, "epsilon", lambda _: 0.995)
    privacy = {"noise_multiplier": 4.0, "epsilon": epsilon, "delta": 1e-5, "unit": "client"}
    mean = rounds.mean_of([rounds.update_of(1)])
    drawn, scale = np.random.default_rng(1), spread * 4.0 * rounds.CLIP / rounds.EXPECTED
    noisy = {name: (one + drawn.normal(size=one.shape) * scale).astype(np.float32) for name, one in mean.items()}
    figures, sound = rounds.release(Done({}, {}, {"privacy": privacy}), noisy, mean)
    assert sound is held
    assert figures["spread of the noise over the receipt's"] == pytest.approx(spread, abs=0.06)


def test_rows_are_dealt_evenly_and_the_same_each_time() -> None:
    found = simulation.dealt(1_500, 6_906)
    counts = np.bincount(found)
    assert (len(counts), counts.min(), counts.max()) == (1_500, 4, 5)
    assert (found == simulation.dealt(1_500, 6_906)).all()
    assert (found != np.arange(6_906) % 1_500).mean() > 0.9


def test_recall_counts_rows_whose_own_is_among_the_nearest() -> None:
    truth = np.eye(4)
    said = np.array([[9.0, 1, 0, 0], [3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0.5]])
    assert ridge.found_among(said, truth, 1) == 0.25
    assert ridge.found_among(said, truth, 2) == 0.5
    assert ridge.found_among(said, truth, 4) == 1.0


def test_an_excerpt_ends_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("first line\nsecond line\nthird", encoding="utf-8")
    assert excerpt(path, 25) == "first line\nsecond line\n"


def test_a_set_is_joined_with_its_splits_and_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_data, "DATA", tmp_path)
    for split in shared_data.SPLITS:
        path = tmp_path / "text" / "tiny" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        some = [{"text": f"{split} {i}", "label": i % 2, "label_name": "ab"[i % 2]} for i in range(3)]
        path.write_text("\n".join(json.dumps(row) for row in some), encoding="utf-8")
    out = shared_data.joined(tmp_path, "tiny", {"train": 2}, lambda split, number, row: f"{split}{number}")
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["split"] for row in found] == ["train"] * 2 + ["valid"] * 3 + ["test"] * 3
    assert found[1] == {"text": "train 1", "label": "b", "split": "train", "client": "train1"}
    with pytest.raises(NotAtHand, match="absent"):
        shared_data.joined(tmp_path, "absent")


@pytest.fixture
def downloaded(tmp_path: Path) -> tuple[Path, str]:
    """A signed folder as a download leaves it, and the key that it is checked against."""
    folder, key = tmp_path / "model", ensure_key(tmp_path / "keys" / "receipt_key.pem")
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 4)
    (folder / "config.json").write_text("{}")
    files = [
        {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size_bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    ]
    receipt: dict[str, Any] = {"job": "job_1", "files": files}
    receipt["signature"] = sign(receipt, key)
    (folder / "receipt.json").write_bytes(canonical_json.encode(receipt))
    return folder, public_key(key)


def test_every_changed_byte_is_noticed_and_taken_back(downloaded: tuple[Path, str]) -> None:
    folder, key = downloaded
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert checking.undetected(folder, key, 40) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_check_that_notices_nothing_is_found_out(
    downloaded: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "verify", lambda folder, key: None)
    folder, key = downloaded
    missed = checking.undetected(folder, key, 40)
    assert len(missed) == 40
    size = (folder / "receipt.json").stat().st_size
    assert missed[0] == f"receipt.json:{size - 1}"
    assert {one.split(":")[0] for one in missed} == {"receipt.json", "config.json", "model.onnx"}


# The script itself, on the one step that needs no data set and no model.


def test_a_quick_walk_of_the_rounds_goes_through_a_real_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(acceptance, "PAGE", tmp_path / "acceptance.md")
    assert acceptance.main(["--quick", "--only", "aggregate"]) == 0
    told = capsys.readouterr().out
    assert told.count("  held: ") == 4
    assert math.isfinite(float(told.split("spread of the noise over the receipt's: ")[1].split()[0]))
    assert not acceptance.PAGE.exists()
