"""What the arms of an experiment come to, and what is said of each treatment. Knows no request, no SQL and no file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.experiments.reading import Left, Paired
from app.experiments.scores import Score, score_of
from app.experiments.statistics import (
    Sampled,
    Table,
    alike,
    holm,
    interval,
    permutation_p,
    sample,
    seeds_needed,
    verdict,
)
from app.experiments.wording import summary
from engine.evaluate import rounded

KEY = 52
"""Of every draw: the same files give the same figures."""


def figures_of(names: Sequence[str], metric: str, margin: float, rows: Paired) -> dict[str, Any]:
    """`arms`, in order, and `comparisons` of the treatments with the baseline, which is the first."""
    table = _Table(metric, rows)
    sampled = [table.sampled(arm) for arm in range(len(names))]
    arms = [_arm(table, one, rows.by_arm[arm]) for arm, one in enumerate(sampled)]
    pairs = [_Pair(table, sampled, arm) for arm in range(1, len(names))]
    known = [pair for pair in pairs if pair.p_value is not None]
    for pair, adjusted in zip(known, holm([pair.p_value or 0.0 for pair in known]), strict=True):
        pair.p_adjusted = adjusted
    return {
        "arms": arms,
        "comparisons": [
            pair.told(name, metric, margin, len(known)) for pair, name in zip(pairs, names[1:], strict=True)
        ],
    }


class _Table:
    """All answers as parts of the score, with the rows that are alike in all arms put together for the draws."""

    def __init__(self, metric: str, rows: Paired) -> None:
        self.n = len(rows.ids)
        self._figures = [{seed: of[seed].figures for seed in sorted(of)} for of in rows.by_arm]
        every = [one for of in self._figures for one in of.values()]
        classes = int(max((one[:, 1:3].max(initial=0) for one in every), default=0)) + 1
        self.score: Score = score_of(metric, classes)
        looked = [one[:, : self.score.columns] for one in every]
        self._kinds, self._weights = alike(np.hstack(looked)) if self.n else (np.zeros(0, np.int64),) * 2

    def sampled(self, arm: int) -> Sampled | None:
        """The score of an arm by seed; None where it has no answers."""
        seeds = self.seeds(arm)
        if not self.n or not seeds:
            return None
        parts = [self.score.parts(self._figures[arm][seed][self._kinds]) for seed in seeds]
        # As Agresti and Coull have it, whose interval is never empty.
        unseen = np.sqrt(2) / (self.n + 4) if self.score.counted else 0.0
        return sample(parts, self._weights, self.score.of, KEY, float(unseen))

    def seeds(self, arm: int) -> list[int]:
        """The seeds that an arm has answers of, in the order of `sampled`."""
        return list(self._figures[arm])

    def parts(self, arm: int, seeds: Sequence[int]) -> list[Table]:
        """What is summed for the score, row by row, by seed; made anew, as that of all arms would be too much."""
        return [self.score.parts(self._figures[arm][seed]) for seed in seeds]


def _arm(table: _Table, sampled: Sampled | None, by_seed: Mapping[int, Left]) -> dict[str, Any]:
    receipts = [one.receipt for one in by_seed.values()]
    seconds = [one.training_seconds for one in by_seed.values() if one.training_seconds is not None]
    sizes = [one["size"]["exported_bytes"] for one in receipts]
    ratios = [one["latency"]["ratio"] for one in receipts]
    claims = [one["privacy"]["epsilon"] for one in receipts if one.get("privacy")]
    epsilons = [one for one in claims if one is not None]  # an audit alone claims none
    score = None
    if sampled is not None:
        low, high = interval(sampled, KEY)
        low, high = (max(0.0, low), min(1.0, high)) if table.score.counted else (low, high)
        score = {"mean": rounded(sampled.value), "ci95": [rounded(low), rounded(high)], "n": table.n}
    return {
        "score": score,
        "size_bytes": round(float(np.mean(sizes))) if sizes else None,
        "latency_ratio": round(float(np.mean(ratios)), 4) if ratios else None,
        "training_seconds": round(float(np.mean(seconds)), 3) if seconds else None,
        "epsilon": max(epsilons) if epsilons else None,
    }


class _Pair:
    """A treatment beside the baseline, on the seeds that both have answers of."""

    def __init__(self, table: _Table, sampled: Sequence[Sampled | None], arm: int) -> None:
        self.table = table
        self.seeds = [seed for seed in table.seeds(arm) if seed in table.seeds(0)]
        self.p_value: float | None = None
        self.p_adjusted: float | None = None
        self.difference: Sampled | None = None
        first, second = sampled[0], sampled[arm]
        if first is None or second is None or not self.seeds:
            return
        # As Agresti and Min have it for paired shares.
        unseen = 1 / (table.n + 2) if table.score.counted else 0.0
        self.difference = _of_seeds(second, table.seeds(arm), self.seeds).less(
            _of_seeds(first, table.seeds(0), self.seeds), unseen
        )
        treatment, baseline = (table.parts(one, self.seeds) for one in (arm, 0))
        self.p_value = permutation_p(treatment, baseline, table.score.of, KEY)

    def told(self, name: str, metric: str, margin: float, comparisons: int) -> dict[str, Any]:
        """The comparison as it stands in answers; `comparisons`: how many there are in all."""
        ends, said, needed = None, "undecided", None
        one = self.difference
        if one is not None and self.p_adjusted is not None and len(self.seeds) > 1:
            ends = interval(one, KEY)
            said = verdict(ends, self.p_adjusted, margin, more_is_better=self.table.score.more_is_better)
            needed = seeds_needed(one, margin, comparisons) if said == "undecided" else 0
        told: dict[str, Any] = {
            "treatment": name,
            "metric": metric,
            "difference": None if one is None else rounded(one.value),
            "ci95": None if ends is None else [rounded(end) for end in ends],
            "p_value": None if self.p_value is None else rounded(self.p_value),
            "p_adjusted": None if self.p_adjusted is None else rounded(self.p_adjusted),
            "verdict": said,
            "seeds_needed": needed,
            "margin": margin,
            "n": self.table.n if one is not None else 0,
            "by_seed": [
                {"seed": seed, "difference": rounded(float(value))}
                for seed, value in (() if one is None else zip(self.seeds, one.by_seed, strict=True))
            ],
        }
        return {**told, "summary": summary(told, more_is_better=self.table.score.more_is_better)}


def _of_seeds(one: Sampled, has: Sequence[int], wanted: Sequence[int]) -> Sampled:
    columns = [has.index(seed) for seed in wanted]
    return Sampled(one.by_seed[columns], one.drawn[:, columns], one.unseen)
