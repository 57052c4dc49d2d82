"""Experiments as they stand in requests and answers. Knows no rule beyond a field's own bounds."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.schemas import Name, ShortName
from app.unfit import lenient
from engine.spec import Real, Whole

Seed = Annotated[Whole, Field(ge=0, lt=2**53)]
MOST_TREATMENTS, MOST_SEEDS, MOST_ITEMS = 8, 20, 200
DEFAULT_SEEDS = (1, 2, 3)
MARGIN = 0.01
_STRICT = ConfigDict(frozen=True, extra="forbid")

EXAMPLE: dict[str, Any] = {
    "name": "does pruning hurt?",
    "baseline": {
        "task": "text_classification",
        "dataset": "ds_01JZX0M5K2N8Q4R6T9V1W3Y5Z7",
        "training": {"epochs": 2, "max_length": 96},
    },
    "treatments": [{"name": "edge", "changes": {"instructions": [{"name": "structured_pruning", "ratio": 0.2}]}}],
    "seeds": [1, 2, 3],
    "human": {"items": 40},
}


class Treatment(BaseModel):
    """One arm beside the baseline."""

    model_config = _STRICT

    name: ShortName
    changes: dict[str, Any] = Field(
        description="What differs from the baseline, as a JSON Merge Patch (RFC 7396): objects are merged, all else is"
        " put in place, null takes the default."
    )


class Human(BaseModel):
    """What people are asked."""

    model_config = _STRICT

    items: Whole = Field(default=40, ge=1, le=MOST_ITEMS, description="Most test rows that they judge.")


class ExperimentCreate(BaseModel):
    """An experiment to be run: every arm with every seed is a job."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    name: Name | None = Field(default=None, description="What people call it.")
    baseline: dict[str, Any] = Field(description="The fields of a job of kind `train`, without a seed.")
    treatments: tuple[Treatment, ...] = Field(min_length=1, max_length=MOST_TREATMENTS)
    seeds: tuple[Seed, ...] = Field(
        default=DEFAULT_SEEDS, min_length=2, max_length=MOST_SEEDS, description="The same for every arm."
    )
    human: Human | None = Field(default=None, description="Let people judge, too; null: nobody is asked.")
    margin: Real = Field(
        default=MARGIN, gt=0, le=1, description="A difference that lies below this for certain counts as none."
    )

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            told = {"remedy": "list each seed once: the same seed gives the same model"}
            raise PydanticCustomError("second_seed", "a seed is listed twice", told)
        return seeds


Submission = Annotated[ExperimentCreate, lenient(lambda _: ExperimentCreate)]
"""To pydantic and to the API's document an experiment; to the endpoint that, or `Unfit`."""


class Score(BaseModel):
    """The mean over the seeds, with its interval; `n` test rows."""

    mean: float
    ci95: tuple[float, float]
    n: int


class RunShown(BaseModel):
    """The job of an arm with one seed; `state` null: it was erased."""

    seed: int
    job: str
    state: str | None


class ArmShown(BaseModel):
    """One arm. Figures are null until all jobs have ended, and where its jobs have left none."""

    name: str
    jobs: list[str]
    runs: list[RunShown]
    score: Score | None
    size_bytes: int | None
    latency_ratio: float | None
    training_seconds: float | None
    epsilon: float | None


class SeedDifference(BaseModel):
    """What one seed alone says."""

    seed: int
    difference: float


class ComparisonShown(BaseModel):
    """A treatment against the baseline: treatment less baseline, in the metric's own unit."""

    treatment: str
    metric: str
    difference: float | None
    ci95: tuple[float, float] | None
    p_value: float | None
    p_adjusted: float | None
    verdict: Literal["better", "worse", "no_difference", "undecided"]
    seeds_needed: int | None
    margin: float
    n: int
    by_seed: list[SeedDifference]
    summary: str


class Strength(BaseModel):
    """How an arm is preferred: the strengths of all arms that were judged add up to 1."""

    value: float
    ci95: tuple[float, float]


class HumanShown(BaseModel):
    """What people said so far; `alpha` is Krippendorff's, null where no two judged the same."""

    items: int
    ballots: int
    raters: int
    strengths: dict[str, Strength]
    alpha: float | None


class ExperimentShown(BaseModel):
    """An experiment in answers."""

    id: str
    object: Literal["experiment"]
    name: str | None
    state: Literal["running", "succeeded", "failed", "cancelled"]
    task: str
    metric: str
    seeds: list[int]
    margin: float
    baseline: dict[str, Any]
    treatments: list[dict[str, Any]]
    arms: list[ArmShown]
    comparisons: list[ComparisonShown]
    human: HumanShown | None
    front: list[str]
    created_at: str
    links: dict[str, str]
