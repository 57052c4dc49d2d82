"""What may be told of a private run: the one place where figures of its training rows are dropped. Knows no task.

Epsilon covers the trained weights and what is computed from them alone. Losses, norms, clipped shares, batch sizes and
the timings that betray these are plain functions of private rows, and so are the effects of whatever looked at them.
What is told is a list of what may pass, so that a new figure is private until somebody says otherwise.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the plan and the spec hold instructions, which are handed a run: a circle of types only
    from engine.instruction import Instruction
    from engine.plan import Plan
    from engine.spec import Spec

PRIVATE = "differential_privacy"
"""The fact that a run is private, as 37 and 40 provide it."""

_PUBLIC = frozenset({"learning_rate", "epsilon"})
_OF_VALID_ROWS = frozenset({"valid_loss", "valid_score", "valid_token_accuracy"})
# Who holds one of these has looked at training rows, so that its figures are about them.
_SEES_ROWS = frozenset(
    {"records", "split", "training_records", "batch", "loss", "gradients", "after_step", "after_epoch", "trained"}
)
# Warnings that say nothing of training rows.
_PUBLIC_WARNINGS = frozenset(
    {
        "few_attacked_rows",
        "fresh_projections",
        "no_gradient",
        "not_repeatable",
        "nothing_kept",
        "nothing_to_choose_by",
        "small_pool",
        "stored_in_eight_bits",
        "untested_detector",
        "weak_audit",
    }
)


def public_figures(values: Mapping[str, float], spec: "Spec", plan: "Plan") -> Mapping[str, float]:
    """The figures of a step that may be told and kept: all of them where the run is not private.

    Validation rows are private too, unless they are a data set of their own: they were given with the same care.
    """
    if PRIVATE not in plan.facts:
        return values
    public = _PUBLIC | _OF_VALID_ROWS if "valid" in dict(spec.files()) else _PUBLIC
    return {name: value for name, value in values.items() if name in public}


def public_tokens(tokens: int, plan: "Plan") -> Mapping[str, int]:
    """How many tokens a run has learned from, for its result; nothing where rows have none, or were drawn in secret."""
    return {"trained_tokens": tokens} if tokens and PRIVATE not in plan.facts else {}


def hides_test_rows(spec: "Spec") -> bool:
    """Whether no row that scores a run may be told of by itself, since it lies in the data set that is kept private.

    Of rows that are a data set of their own everybody may ask a plain job. What is worked out from all of them together
    is told: a score, an interval. An answer of a model that is handed out is as good as the row's name to whoever has
    the row, so names alone are not what is kept back.
    """
    private = any(PRIVATE in one.provides for one in spec.instructions)
    return private and "test" not in dict(spec.files())


def is_public_warning(code: str, plan: "Plan") -> bool:
    """Whether a warning may be told: any where the run is not private."""
    return PRIVATE not in plan.facts or code in _PUBLIC_WARNINGS


def public_effects(effects: Mapping[int, Mapping[str, float]], plan: "Plan") -> Mapping[int, Mapping[str, float]]:
    """The effects that a receipt may show: in a private run, none of an instruction that saw training rows."""
    if PRIVATE not in plan.facts:
        return effects
    return {one.number: effects[one.number] for one in plan.instructions if one.number in effects and _public(one)}


def _public(one: "Instruction") -> bool:
    return one.band == "privacy" or not _SEES_ROWS.intersection(one.hooks)
