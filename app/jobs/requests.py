"""Jobs as they stand in requests: a class for each kind that is served.

Knows no rule beyond a field's own bounds.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

from app.schemas import Name, OneLine
from app.unfit import lenient
from app.webhooks.addresses import ADDRESS_CODES
from app.webhooks.schemas import JobWebhook
from engine.kinds import Compress, Detect, Evaluate
from engine.spec import Spec

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
    """As `app.unfit` has them."""

    name: Name | None = Field(default=None, description="What people call it.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Up to 16 pairs of your own, to filter lists by."
    )
    auto_start: bool = Field(default=True, strict=True, description="false: checked and stored, and queued by `start`.")
    webhook: JobWebhook | None = Field(default=None, description="Whom to tell of the job's end.")


class JobCreate(Submitted, Spec):
    """A job of kind `train`."""

    model_config = _config(TRAIN_EXAMPLE)
    stand_ins = {"task": "text_classification", "dataset": "ds_0"}
    # Which base, metric, format and parameters are right follows from the task.
    whatever: ClassVar[Mapping[str, frozenset[str]]] = {
        "task": frozenset({"unknown_dataset", "unknown_model", "needs_privacy", "labels_differ", "not_applicable"})
        | {"repeated_instruction", "wrong_kind", "missing_need", "excluded", "slot_conflict", "decided_twice"}
        | ADDRESS_CODES
    }

    kind: Literal["train"] = "train"


class EvaluateCreate(Submitted, Evaluate):
    """A job of kind `evaluate`."""

    model_config = _config(EVALUATE_EXAMPLE)
    stand_ins = {"kind": "evaluate", "model": "job_0"}


class CompressCreate(Submitted, Compress):
    """A job of kind `compress`."""

    model_config = _config(COMPRESS_EXAMPLE)
    stand_ins = {"kind": "compress", "model": "job_0"}


class DetectCreate(Submitted, Detect):
    """A job of kind `detect`."""

    model_config = _config(DETECT_EXAMPLE)
    stand_ins = {"kind": "detect", "model": "job_0", "inputs": {"texts": ["a"]}}


AnyCreate: TypeAlias = JobCreate | EvaluateCreate | CompressCreate | DetectCreate
REQUESTS: Mapping[str, type[AnyCreate]] = {
    "train": JobCreate,
    "evaluate": EvaluateCreate,
    "compress": CompressCreate,
    "detect": DetectCreate,
}
"""The class of a request by its kind: those that are served."""


class Unserved(Submitted):
    """A job of a kind that nobody can tell: its other fields cannot be judged, since the kinds have different ones."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["train", "evaluate", "compress", "detect"]

    @field_validator("kind", mode="before")
    @classmethod
    def _made_otherwise(cls, kind: Any) -> Any:
        if kind == "aggregate":
            told = {"remedy": f"close a round: POST /v1/rounds/{{id}}/close; here send {' or '.join(REQUESTS)}"}
            raise PydanticCustomError("kind_not_available", "jobs of kind aggregate are made of rounds", told)
        return kind


def request_class(body: Any) -> type[AnyCreate | Unserved]:
    """The class that a body is read by: that of the nearest kind; `Unserved` where there is none."""
    kind = body.get("kind", "train") if isinstance(body, dict) else "train"
    if not isinstance(kind, str):
        return Unserved
    near = [kind] if kind in REQUESTS else difflib.get_close_matches(kind, REQUESTS, n=1)
    return REQUESTS[near[0]] if near else Unserved


Submission = Annotated[JobCreate | EvaluateCreate | CompressCreate | DetectCreate, lenient(request_class)]
"""To pydantic and to the API's document one of the kinds; to the endpoint one of them or `Unfit`."""
