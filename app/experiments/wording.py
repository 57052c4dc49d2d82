"""The verdict on a treatment in words. Knows no figures but those that it is handed."""

from collections.abc import Mapping
from typing import Any


def summary(told: Mapping[str, Any], *, more_is_better: bool) -> str:
    """One or two sentences that say what the data say, and where they do not decide what would."""
    name, metric, verdict = told["treatment"], told["metric"], told["verdict"]
    if told["difference"] is None:
        return f"{name} cannot be compared: no seed has succeeded for both it and the baseline."
    if told["ci95"] is None:
        return f"The data do not decide: a single seed has succeeded for both {name} and the baseline."
    low, high = told["ci95"]
    figures = (
        f"its {metric} differs from the baseline's by {told['difference']:+.4g}"
        f" (95 % interval {low:+.4g} to {high:+.4g}, adjusted p = {told['p_adjusted']:.2g})"
    )
    rule = "" if more_is_better else "; less is better"
    if verdict == "no_difference":
        seen = ", though it is not zero" if low > 0 or high < 0 else ""
        return f"{name} makes no difference that matters: {figures}{rule}, which lies within {told['margin']:g}{seen}."
    if verdict != "undecided":
        return f"{name} is {verdict} than the baseline: {figures}{rule}."
    return f"The data do not decide about {name}: {figures}{rule}. {_what_would(told)}"


def _what_would(told: Mapping[str, Any]) -> str:
    needed, n = told["seeds_needed"], told["n"]
    if needed is None:
        return f"No number of further seeds would: the {n} test rows are what limits it, so more of these would."
    seeds = "seed" if needed == 1 else "seeds"
    return f"About {needed} further {seeds} would, if the difference and the spread stay what they are."
