"""A fine-tuning job as it stands in requests: OpenAI's fields, and ours that ride along in `extra_body`.

What our own fields may hold, `app.jobs.requests` says. Knows no rule beyond a field's own bounds.
"""

import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.jobs.requests import MetadataKey, MetadataValue
from app.schemas import ShortName
from app.unfit import lenient
from engine.spec import TaskName

EXAMPLE: dict[str, Any] = {
    "model": "smollm2-135m",
    "training_file": "file_01JZX0M5K2N8Q4R6T9V1W3Y5Z7",
    "suffix": "spam",
    "seed": 7,
    "metadata": {"team": "mail"},
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": "auto"}}},
    "instructions": [12, {"name": "low_rank_adaptation", "rank": 8}],
    "training": {"max_length": 256},
}
_FROZEN = ConfigDict(frozen=True, extra="forbid")
FileId = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def _whole(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    told = {"remedy": 'send "auto" or a whole number of at least 1'}
    raise PydanticCustomError("wrong_number", 'this is neither "auto" nor a whole number of at least 1', told)


def _factor(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (number and 0 < value <= sys.float_info.max):  # a whole number may be greater than any float
        return value
    told = {"remedy": 'send "auto" or a number above 0'}
    raise PydanticCustomError("wrong_number", 'this is neither "auto" nor a finite number above 0', told)


# A union would put its alternatives into the pointers of faults.
Whole = Annotated[
    int | Literal["auto"],
    PlainValidator(_whole),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
Factor = Annotated[
    float | Literal["auto"],
    PlainValidator(_factor),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0}]}),
]


class Hyperparameters(BaseModel):
    """`auto`: as a job of this server has it by default."""

    model_config = _FROZEN

    n_epochs: Whole = Field(default="auto", description="`training.epochs`.")
    batch_size: Whole = Field(default="auto", description="`training.batch_size`.")
    learning_rate_multiplier: Factor = Field(default="auto", description="Times the default rate of the base.")


class Supervised(BaseModel):
    """The one method that is served."""

    model_config = _FROZEN

    hyperparameters: Hyperparameters | None = None


class Method(BaseModel):
    """How the model learns."""

    model_config = _FROZEN

    type: Literal["supervised"]
    supervised: Supervised | None = None

    @field_validator("type", mode="before")
    @classmethod
    def _served(cls, kind: Any) -> Any:
        if kind in ("dpo", "reinforcement"):
            raise PydanticCustomError(
                "method_not_available",
                "this server does not serve the method {kind}",
                {"kind": kind, "remedy": "send supervised, with conversations that show the wanted answers"},
            )
        return kind


class FineTuningCreate(BaseModel):
    """A training job as OpenAI's clients ask for it. `task` is that of the base model where it is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE]})
    stand_ins: ClassVar[Mapping[str, Any]] = {"model": "smollm2-135m", "training_file": "file_0"}
    """As `app.unfit` has them."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(description="A base model.")
    training_file: FileId = Field(description="A file of purpose fine-tune, or a data set.")
    validation_file: FileId | None = Field(
        default=None, description="What the model is scored on; without it a tenth of the rows."
    )
    suffix: ShortName | None = Field(default=None, description="A part of the trained model's name.")
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**53)] | None = Field(
        default=None, description="`training.seed`."
    )
    metadata: dict[MetadataKey, MetadataValue] | None = Field(
        default=None, max_length=16, description="Up to 16 pairs of your own, to filter lists by."
    )
    method: Method | None = Field(default=None, description="supervised.")
    hyperparameters: Hyperparameters | None = Field(default=None, description="Those of before there was `method`.")
    integrations: Annotated[list[Any], Field(max_length=0)] | None = Field(
        default=None, description="Not served: null, or an empty list."
    )
    task: TaskName | None = Field(default=None, description="What is trained; None: what the base is for.")
    instructions: list[Any] | None = Field(default=None, description="As in POST /v1/jobs.")
    training: dict[str, Any] | None = Field(default=None, description="As in POST /v1/jobs.")
    limits: dict[str, Any] | None = Field(default=None, description="As in POST /v1/jobs.")
    export: dict[str, Any] | None = Field(default=None, description="As in POST /v1/jobs.")

    @property
    def hyperparameter_places(self) -> dict[str, Hyperparameters]:
        """The hyperparameters by the pointer to them; those of `method` first."""
        method = self.method.supervised.hyperparameters if self.method and self.method.supervised else None
        given = {"/method/supervised/hyperparameters": method, "/hyperparameters": self.hyperparameters}
        return {pointer: one for pointer, one in given.items() if one is not None}

    def asked(self, name: str) -> tuple[str, Any]:
        """A hyperparameter and the pointer to it, from the first place that does not leave it to the server."""
        pointer = next(iter(self.hyperparameter_places), "/hyperparameters")
        given = ((f"{at}/{name}", getattr(one, name)) for at, one in self.hyperparameter_places.items())
        return next(((at, value) for at, value in given if value != "auto"), (f"{pointer}/{name}", "auto"))


Asked = Annotated[FineTuningCreate, lenient(lambda _: FineTuningCreate)]
"""To pydantic and to the API's document a fine-tuning job; to the endpoint that or `Unfit`."""
