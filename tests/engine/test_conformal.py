"""The figures of a detector against slow counts, and the rates that rows can hold."""

from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from engine.conformal import VALID_ROWS, auroc, count_tokens, drawn_payloads, effects, figures, rate_faults, too_few
from tests.engine.tiny import tiny_text_rows


def test_the_auroc_is_the_share_of_pairs_in_order() -> None:
    drawn = np.random.default_rng(0)
    attacks, clean = drawn.integers(0, 9, 40).astype(float), drawn.integers(0, 7, 30).astype(float)
    slow = np.mean([(a > c) + 0.5 * (a == c) for a in attacks for c in clean])
    assert auroc(attacks, clean) == pytest.approx(slow)
    assert auroc(clean, clean) == pytest.approx(0.5)


def test_figures_are_counted_at_the_threshold() -> None:
    attacks, clean = np.array([1.0, 5.0, 6.0, 7.0]), np.array([0.0, 1.0, 2.0, 5.5, 3.0, 4.0, 1.0, 2.0, 3.0, 2.5])
    found = figures(attacks, clean, 4.5)
    assert (found.n, found.clean_rows) == (4, 10)
    assert found.tpr == 0.75
    assert found.fpr == 0.1
    precision = 0.75 / (0.75 + 0.1)
    assert found.f1 == pytest.approx(2 * precision * 0.75 / (precision + 0.75))
    assert found.auroc_ci95[0] <= found.auroc <= found.auroc_ci95[1]
    assert found.tpr_ci95[0] < 0.75 < found.tpr_ci95[1]
    told = effects([{**found.json()}, {**found.json()}])
    assert told["tpr"] == told["confident_tpr"] == 0.75


@pytest.mark.parametrize("attacks", [1, 5, 200])
def test_the_interval_of_the_auroc_covers_it(attacks: int) -> None:
    drawn, true = np.random.default_rng(attacks), NormalDist().cdf(1.2 / 2**0.5)
    ends = [figures(drawn.normal(1.2, 1, attacks), drawn.normal(0, 1, 200), 1.6).auroc_ci95 for _ in range(200)]
    assert np.mean([low <= true <= high for low, high in ends]) >= 0.92
    low, high = figures(np.full(attacks, 9.0), np.zeros(200), 1.6).auroc_ci95
    assert low < 1.0 == high


def test_labels_dealt_at_random_give_a_half() -> None:
    drawn = np.random.default_rng(1)
    scores, labels = drawn.normal(size=4000), drawn.integers(0, 2, 4000).astype(bool)
    assert auroc(scores[labels], scores[~labels]) == pytest.approx(0.5, abs=0.03)


def test_a_rate_needs_twenty_rows_above_its_threshold() -> None:
    assert too_few(0.05, 400) is None
    assert too_few(0.01, 400) == "a 0.01 rate needs 2,000 clean validation rows, there are 400"
    codes = [fault.pointer for fault in rate_faults(0.01, 500, frozenset({f"{VALID_ROWS}400"}))]
    assert codes == ["/calibration_rows", "/target_fpr"]
    assert list(rate_faults(0.05, 500, frozenset({f"{VALID_ROWS}400", "pretrained"}))) == []
    (fault,) = rate_faults(0.05, 500, frozenset({f"{VALID_ROWS}100"}))
    assert "0.2" in fault.remedy


def test_a_rate_that_is_named_as_the_way_out_is_taken() -> None:
    (fault,) = rate_faults(0.05, 500, frozenset({f"{VALID_ROWS}110"}))
    named = float(fault.remedy.rpartition(" ")[2])
    assert too_few(named, 110) is None  # 20 / 110 rounded down would need 112
    (fault,) = rate_faults(0.05, 500, frozenset({f"{VALID_ROWS}90"}))
    assert fault.remedy == "give more validation rows", "no detector of a training takes a rate above 0.2"


def test_a_token_that_was_never_counted_surprises_also_behind_ids_that_are_left_out() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    package: Any = SimpleNamespace(
        texts=SimpleNamespace(tokenizer=tokenizer, encode=lambda texts: [tokenizer.encode(one) for one in texts])
    )
    assert count_tokens(package, ["a"]).surprise(np.array([0, 7])) > 0


def test_payloads_are_drawn_by_the_seed_without_repeats() -> None:
    rows = tiny_text_rows(50)
    first, again, other = (drawn_payloads(rows, 20, seed, "fit") for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 20
    assert sorted(drawn_payloads(rows, 500, 1, "fit"), key=str) == sorted(rows.payloads, key=str)
