"""Density and substitution: numbers by hand, one input alone, and what they cannot do without."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client import signals
from client.artifact import Package
from client.density import AnswerLaw, centred
from client.detector import read_signals
from client.errors import BadPackage
from client.signals import Statistics
from client.squeezing import with_neighbours

FREE, PRIZE, HELLO = 4, 5, 6  # ids of the tiny model's words
LAW = AnswerLaw(np.array([[1.0, -1.0], [-2.0, 2.0]]), np.array([[2.0, 0.0], [0.0, 1.0]]))


def table() -> np.ndarray:
    """Free has hello for a neighbour, and nothing else has one."""
    found = np.full((8, 2), -1, dtype=np.int64)
    found[FREE, 0] = HELLO
    return found


def test_density_is_the_distance_to_the_nearest_class(text_folder: Path) -> None:
    # Two words, one of them free: logits [2, 3], less their mean [-.5, .5].
    expected = 2 * 1.5**2 + 1.5**2
    assert LAW.distance(np.array([2.0, 3.0])) == pytest.approx(expected)
    (raw,) = read_signals(Package(text_folder), Statistics(answers=LAW), ["density"], ["free hello"]).signals
    assert raw[0] == pytest.approx(expected)
    assert LAW.distance(np.array([7.0, 5.0])) == pytest.approx(0.0)


def test_what_all_logits_share_is_taken_off() -> None:
    logits = np.array([[1.0, 4.0, 1.0]])
    np.testing.assert_allclose(centred(logits), centred(logits + 100.0))
    assert LAW.distance(np.array([2.0, 3.0])) == pytest.approx(LAW.distance(np.array([102.0, 103.0])))


def test_substitution_is_the_lead_that_is_left(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = Statistics(neighbours=table())
    package = Package(text_folder)
    monkeypatch.setattr(signals, "_SHARE", 1.0)
    changed, kept = read_signals(package, statistics, ["substitution"], ["free hello", "prize hello"]).signals
    # "free hello" is [2, 3], and [2, 0] once hello stands for free: the answer fell from a lead of 1 to -2.
    assert changed[0] == pytest.approx(2.0)
    assert kept[0] == pytest.approx(-1.0)
    monkeypatch.setattr(signals, "_SHARE", 0.0)
    (untouched,) = read_signals(package, statistics, ["substitution"], ["free hello"]).signals
    assert untouched[0] == pytest.approx(-1.0)


def test_about_a_share_of_the_words_changes_and_the_draw_follows_from_the_text() -> None:
    ids = np.array([1, *[FREE] * 40, PRIZE, 2])
    copies = with_neighbours(ids, range(1, 42), table(), 50, 0.3)
    assert np.array_equal(copies, with_neighbours(ids.copy(), range(1, 42), table(), 50, 0.3))
    assert set(np.unique(copies[:, 1:41])) == {FREE, HELLO}
    assert (copies[:, 1:41] == HELLO).mean() == pytest.approx(0.3, abs=0.05)
    assert (copies[:, [0, 41, 42]] == ids[[0, 41, 42]]).all()
    other = with_neighbours(np.append(ids, 2), range(1, 42), table(), 50, 0.3)
    assert not np.array_equal(copies, other[:, :-1])


def test_a_score_depends_on_its_input_alone(text_folder: Path) -> None:
    names, statistics = ["density", "substitution"], Statistics(answers=LAW, neighbours=table())
    given = ["free hello", "hello", "free prize free", "prize"]
    together = read_signals(Package(text_folder), statistics, names, given).signals
    for number, text in enumerate(given):
        np.testing.assert_array_equal(
            read_signals(Package(text_folder), statistics, names, [text]).signals[0], together[number]
        )


def test_they_come_back_as_they_were_stored() -> None:
    made = Statistics(answers=LAW, neighbours=table())
    back = Statistics.from_arrays(made.arrays(), made.squeezers)
    assert back.answers is not None
    assert back.neighbours is not None
    assert np.array_equal(back.answers.means, LAW.means)
    assert np.array_equal(back.neighbours, table())
    assert replace(back, answers=None, neighbours=None) == Statistics()


@pytest.mark.parametrize("name", ["density", "substitution"])
def test_without_what_they_know_they_say_so(text_folder: Path, name: str) -> None:
    with pytest.raises(BadPackage) as refused:
        read_signals(Package(text_folder), Statistics(), [name], ["hello"])
    assert name in refused.value.remedy
