"""Jobs as they stand in requests: a class for each kind that is served, and what is wrong with a body that is none.

Knows no rule beyond a field's own bounds.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.schemas import Name, OneLine
from app.webhooks.schemas import JobWebhook
from engine.errors import Fault
from engine.faults import from_validation
from engine.kinds import Compress, Detect, Evaluate
from engine.spec import Kind, Spec

MetadataKey = OneLine[Annotated[str, StringConstraints(min_length=1, max_length=64)]]
MetadataValue = OneLine[Annotated[str, StringConstraints(max_length=512)]]

TRAIN_EXAMPLE: dict[str, Any] = {
    "task": "text_classification",
    "dataset": "ds_01JZX0M5K2N8Q4R6T9V1W3Y5Z7",
    "instructions": [1, "length_bucketing", {"name": "structured_pruning", "ratio": 0.2}],
    "training": {"epochs": 2, "batch_size": 32, "max_length": 96},
    "limits": {"max_size_ratio": 0.9},
    "name": "spam filter",
    "metadata": {"team": "mail"},
}
_MODEL = "job_01JZX0M5K2N8Q4R6T9V1W3Y5Z7"
EVALUATE_EXAMPLE: dict[str, Any] = {"kind": "evaluate", "model": _MODEL, "limits": {"min_metric": 0.9}}
COMPRESS_EXAMPLE: dict[str, Any] = {
    "kind": "compress",
    "model": _MODEL,
    "dataset": "ds_01JZX0M5K2N8Q4R6T9V1W3Y5Z7",
    "instructions": [{"name": "structured_pruning", "ratio": 0.2}, "post_training_quantization"],
    "limits": {"max_metric_loss": 0.01, "max_size_ratio": 0.3},
}

DETECT_EXAMPLE: dict[str, Any] = {
    "kind": "detect",
    "model": _MODEL,
    "inputs": {"texts": ["the parcel is here", "yоur аccount is closed"]},
    "target_fpr": 0.05,
}


def _config(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [example]})


class Submitted(BaseModel):
    """What only the service reads of a job, whatever its kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stand_ins: ClassVar[Mapping[str, Any]] = {}
    """Values for fields without a default, with which the rest of a faulty body can be checked."""

    name: Name | None = Field(default=None, description="What people call it.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Up to 16 pairs of your own, to filter lists by."
    )
    auto_start: bool = Field(default=True, strict=True, description="false: checked and stored, and queued by `start`.")
    webhook: JobWebhook | None = Field(default=None, description="Whom to tell of the job's end.")


class JobCreate(Submitted, Spec):
    """A job of kind `train`."""

    model_config = _config(TRAIN_EXAMPLE)
    stand_ins = {"dataset": "ds_0"}

    kind: Annotated[Kind, WithJsonSchema({"type": "string", "const": "train"})] = "train"

    @field_validator("kind")
    @classmethod
    def _served_kind(cls, kind: Kind) -> Kind:
        if kind not in REQUESTS:
            raise PydanticCustomError(
                "kind_not_available",
                "this server does not run jobs of kind {kind} yet",
                {"kind": kind, "remedy": f"send {' or '.join(REQUESTS)}"},
            )
        return kind


class EvaluateCreate(Submitted, Evaluate):
    """A job of kind `evaluate`."""

    model_config = _config(EVALUATE_EXAMPLE)
    stand_ins = {"model": "job_0"}


class CompressCreate(Submitted, Compress):
    """A job of kind `compress`."""

    model_config = _config(COMPRESS_EXAMPLE)
    stand_ins = {"model": "job_0"}


class DetectCreate(Submitted, Detect):
    """A job of kind `detect`."""

    model_config = _config(DETECT_EXAMPLE)
    stand_ins = {"model": "job_0", "inputs": {"texts": ["a"]}}


AnyCreate: TypeAlias = JobCreate | EvaluateCreate | CompressCreate | DetectCreate
REQUESTS: Mapping[str, type[AnyCreate]] = {
    "train": JobCreate,
    "evaluate": EvaluateCreate,
    "compress": CompressCreate,
    "detect": DetectCreate,
}
"""The class of a request by its kind: those that are served."""


def request_class(body: Any) -> type[AnyCreate]:
    """The class that a body is read by; that of `train`, which then says what is wrong, where there is none."""
    kind = body.get("kind") if isinstance(body, dict) else None
    return REQUESTS.get(kind, JobCreate) if isinstance(kind, str) else JobCreate


class Unfit:
    """A body that is no job, with its faults: kept, so that what can be checked further is told along with them."""

    def __init__(self, body: Any, faults: list[Fault]) -> None:
        self.body = body
        self.faults = faults


def _fitting(body: Any, validate: Any) -> Any:
    if isinstance(body, bytes):
        # It came under another content type than JSON's: that is the one fault to tell.
        return validate(body)
    kind = request_class(body)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        return Unfit(body, from_validation(error, kind))


Submission = Annotated[JobCreate | EvaluateCreate | CompressCreate | DetectCreate, WrapValidator(_fitting)]
"""To pydantic and to the API's document one of the kinds; to the endpoint one of them or `Unfit`."""
