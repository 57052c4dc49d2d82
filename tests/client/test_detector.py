"""The detector of a downloaded folder: one input alone decides, the stated rate holds, and damage is told."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save

from client.artifact import Package
from client.cli import main
from client.conformal import Calibration, rows_needed
from client.detector import ABOUT, TENSORS, Detector, read_signals
from client.errors import BadPackage, BadUsage, ExitCode
from client.ngrams import NGrams
from client.signals import Statistics
from client.tensors import read_tensors
from tests.client.test_artifact import rewrite

SIGNALS = ("softmax", "perplexity", "reaction")
WORDS = ("free", "prize", "hello", "café")


def texts(n: int, seed: int = 0) -> list[str]:
    drawn = np.random.default_rng(seed)
    return [" ".join(drawn.choice(WORDS, int(drawn.integers(1, 5)))) for _ in range(n)]


def counts(package: Package, rows: list[str]) -> NGrams:
    reader = package.texts
    ids = [np.array(reader.encode([row])[0].ids, dtype=np.int64) for row in rows]
    return NGrams.fit(ids, reader.tokenizer.get_vocab_size())


def write(folder: Path, rows: int = 100, signals: tuple[str, ...] = SIGNALS) -> Detector:
    """A detector of the folder's model, calibrated on drawn texts, written beside it."""
    package = Package(folder)
    statistics = Statistics(counts(package, texts(50, 7)))
    raw = read_signals(package, statistics, signals, texts(rows, 8)).signals
    made = Detector(package, Calibration(signals, raw), statistics, 0.2)
    content = save({name: np.ascontiguousarray(one) for name, one in made.arrays().items()})
    (folder / TENSORS).write_bytes(content)
    (folder / ABOUT).write_text(json.dumps(made.about(hashlib.sha256(content).hexdigest())))
    return made


@pytest.fixture
def folder(text_folder: Path) -> Path:
    write(text_folder)
    return text_folder


def test_a_score_depends_on_its_input_alone(folder: Path) -> None:
    detector = Detector.read(Package(folder))
    given = [*texts(12, 3), "hello", "free prize free prize free prize"]
    together = detector.screen(given).detections
    order = np.random.default_rng(0).permutation(len(given)).tolist()
    permuted = detector.screen([given[i] for i in order]).detections
    for place, number in enumerate(order):
        (alone,) = detector.screen([given[number]]).detections
        for other in (permuted[place], alone):
            assert {**other.json(), "index": 0} == {**together[number].json(), "index": 0}


def test_the_signals_are_what_can_be_worked_out_by_hand(folder: Path) -> None:
    """Logits are [words, 3 for each free or prize], so what masking one word does is known."""
    package = Package(folder)
    (raw,) = read_signals(package, Statistics(), ("softmax", "reaction"), ["free hello hello"]).signals
    # Plain: 3 words, one of them worth 3: [3, 3]. A masked word is unknown and counts nothing.
    assert raw[0] == pytest.approx(0.0, abs=1e-6)
    leads = sorted([2 - 0, 2 - 3, 2 - 3])  # the winner is the first: without free [2, 0], without a hello [2, 3]
    assert raw[1] == pytest.approx(-np.mean(leads), abs=1e-6)


def test_what_was_never_counted_surprises(folder: Path) -> None:
    package = Package(folder)
    statistics = Statistics(counts(package, ["hello prize"] * 20))
    usual, unusual = read_signals(package, statistics, ("perplexity",), ["hello prize", "prize hello"]).signals
    assert unusual[0] > usual[0]


def test_a_flag_is_a_p_value_at_most_the_rate(folder: Path) -> None:
    found = Detector.read(Package(folder)).screen(texts(60, 5), target_fpr=0.3)
    assert all(one.flagged is (one.p_value <= 0.3) for one in found.detections)
    assert found.summary["flagged"] == sum(one.flagged for one in found.detections)
    assert found.summary["n"] == 60
    assert found.summary["calibration_rows"] == 100
    assert found.summary["detector_sha256"] == hashlib.sha256((folder / ABOUT).read_bytes()).hexdigest()
    threshold = found.summary["threshold"]
    assert all(one.flagged is (one.score > threshold) for one in found.detections)


def test_the_calibration_rows_are_flagged_at_the_rate(folder: Path) -> None:
    found = Detector.read(Package(folder)).screen(texts(100, 8), target_fpr=0.2)
    assert found.summary["flagged"] <= 21
    assert found.summary["shift_warning"] is None


def test_other_traffic_is_warned_of(text_folder: Path) -> None:
    package = Package(text_folder)
    statistics = Statistics(counts(package, ["hello"] * 30))
    raw = read_signals(package, statistics, ("perplexity",), ["hello"] * 80 + ["hello hello"] * 20).signals
    detector = Detector(package, Calibration(("perplexity",), raw), statistics, 0.2)
    warning = detector.screen(["prize free prize"] * 60).summary["shift_warning"]
    assert warning is not None
    assert "recalibrate" in warning


def test_fewer_signals_and_false_discoveries_can_be_asked_for(folder: Path) -> None:
    detector = Detector.read(Package(folder))
    alone = detector.screen(texts(5), signals=["reaction"])
    assert [list(one.signals) for one in alone.detections] == [["reaction"]] * 5
    few = detector.screen(texts(30), control="fdr").summary["flagged"]
    assert few <= detector.screen(texts(30)).summary["flagged"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"target_fpr": 0.19}, "needs 106 clean rows"),
        ({"target_fpr": 1.5}, "no share"),
        ({"signals": ["attention"]}, "no signal attention"),
        ({"signals": []}, "empty list"),
    ],
)
def test_what_cannot_be_promised_is_refused(folder: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadUsage, match=says) as refused:
        Detector.read(Package(folder)).screen(["hello"], **given)
    assert refused.value.remedy


def test_an_empty_text_is_refused_and_no_input_is_none(folder: Path) -> None:
    detector = Detector.read(Package(folder))
    with pytest.raises(BadUsage, match="input 1 is empty"):
        detector.screen(["hello", " "])
    assert detector.screen([]).detections == []


def test_look_alikes_are_told_of(folder: Path) -> None:
    plain, hidden = Detector.read(Package(folder)).screen(["hello", "hеllo"]).detections
    assert not plain.canonical_changed
    assert hidden.canonical_changed


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / ABOUT).unlink(), "carries no detector"),
        (lambda folder: (folder / ABOUT).write_text("{"), "cannot be read"),
        (lambda folder: rewrite(folder / ABOUT, signals=["dreams"]), "does not know"),
        (lambda folder: rewrite(folder / ABOUT, combine="sum"), "does not know"),
        (lambda folder: (folder / TENSORS).write_bytes(b"none"), "another tensors"),
        (lambda folder: (folder / TENSORS).unlink(), "cannot read"),
        (lambda folder: rewrite(folder / ABOUT, model_sha256="0"), "another model"),
        (lambda folder: rewrite(folder / "config.json", max_length=5), "another preparation"),
        (lambda folder: rewrite(folder / ABOUT, signals=["softmax"]), "does not fit"),
    ],
)
def test_damage_is_told(folder: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(folder)
    with pytest.raises(BadPackage, match=says) as refused:
        Detector.read(Package(folder))
    assert refused.value.remedy


def test_tensors_are_read_as_the_library_writes_them(tmp_path: Path) -> None:
    written: dict[str, npt.NDArray[Any]] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([2**40], dtype=np.int64),
    }
    (tmp_path / "file").write_bytes(save(written, metadata={"format": "np"}))
    found = read_tensors(tmp_path / "file")
    assert found.keys() == written.keys()
    assert all(np.array_equal(found[name], one) for name, one in written.items())
    for content in (b"", b"\x05" + b"\0" * 7 + b"nope!", save(written)[:-4]):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(BadPackage):
            read_tensors(tmp_path / "file")


def test_rows_needed_leave_twenty_above_the_threshold() -> None:
    assert [rows_needed(rate) for rate in (0.2, 0.05, 0.01)] == [100, 400, 2000]


def test_the_command_tells_verdicts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["detect", str(folder), "hello", "free prize free", "--target-fpr", "0.2", "--signals", "softmax,reaction"]
    assert main([*words, "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert [one["index"] for one in told["detections"]] == [0, 1]
    assert set(told["detections"][0]["signals"]) == {"softmax", "reaction"}
    assert main(words) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "hello: " in shown
    assert "not evaluated against an attacker" in shown


def test_the_command_names_the_next_step(text_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(text_folder), "hello"]) == ExitCode.BAD_PACKAGE
    assert "attention_detection (33)" in capsys.readouterr().err
