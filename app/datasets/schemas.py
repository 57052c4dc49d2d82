"""Data sets as they stand in forms and answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.answers import timestamp
from app.datasets.models import Dataset
from app.schemas import Name

Task = Literal["text_classification", "causal_lm", "image_classification", "text_image_pairs"]
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class DatasetCreate(BaseModel):
    """The fields of an upload beside its `file`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task = Field(description="What the rows are for.")
    name: Name | None = Field(default=None, description="What people call it; empty: as the file is called.")
    text_column: Column | None = Field(default=None, description="Column of the text; default `text`.")
    label_column: Column | None = Field(default=None, description="Column of the class; default `label`.")
    split_column: Column | None = Field(
        default=None, description="Column of train, valid or test; default `split` where the file has it."
    )
    group_column: Column | None = Field(default=None, description="Column of what must stay in one split.")
    nominal_rows: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="A public number instead of the private one: of rows, or of training rows where splits are named.",
    )
    invalid_rows: Literal["refuse", "skip"] = Field(
        default="refuse", description="Whether one invalid row refuses the file, or is left out and listed."
    )
    max_invalid_fraction: float = Field(
        default=0.1, ge=0, le=1, allow_inf_nan=False, description="With `skip`: the most that may be left out."
    )


class DatasetProblem(BaseModel):
    """A row that was left out; the last entry may count those that are not listed."""

    pointer: str
    line: int | None
    code: str
    detail: str
    remedy: str


class DatasetShown(BaseModel):
    """A data set in answers."""

    id: str
    object: Literal["dataset"]
    name: str | None
    task: str
    status: Literal["checking", "ready", "invalid"]
    rows: int
    nominal_rows: int | None
    size_bytes: int
    sha256: str
    splits: dict[str, int]
    columns: dict[str, str]
    labels: list[str]
    label_counts: dict[str, int]
    problems: list[DatasetProblem]
    created_at: str


class Preview(BaseModel):
    """The first rows of a data set; the bytes of a picture are base64.

    A text is cut after 4,000 characters, and a picture of more than 200,000 bytes is null: a row's `cut` names them.
    """

    object: Literal["preview"]
    dataset: str
    rows: list[dict[str, Any]]


def dataset_json(dataset: Dataset) -> dict[str, Any]:
    """A data set as it stands in answers."""
    return {
        "id": dataset.id,
        "object": "dataset",
        "name": dataset.name,
        "task": dataset.task,
        "status": dataset.status,
        "rows": dataset.rows,
        "nominal_rows": dataset.nominal_rows,
        "size_bytes": dataset.size_bytes,
        "sha256": dataset.sha256,
        "splits": dataset.splits,
        "columns": dataset.columns,
        "labels": dataset.labels,
        "label_counts": dataset.label_counts,
        "problems": dataset.problems,
        "created_at": timestamp(dataset.created_at),
    }
