"""Files as they stand in forms and answers of OpenAI's surface."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from app.artifacts.models import Artifact
from app.datasets.schemas import DatasetProblem
from app.openai_tables.models import File
from engine.errors import Fault

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
PURPOSES: tuple[str, ...] = get_args(Purpose)
TRAINED_ON: Purpose = "fine-tune"
RESULTS = "fine-tune-results"
"""The purpose of what jobs have made."""
MOST_TOLD = 20
"""Lines that `status_details` names; `problems` has all that the check lists."""


class ExpiresAfter(BaseModel):
    """How long a file is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    anchor: Literal["created_at"] = Field(description="From when on.")
    seconds: Annotated[int, Field(ge=3600, le=2_592_000, description="How long from then on.")]


class FileCreate(BaseModel):
    """The fields of an upload beside its `file`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: Purpose = Field(description="What it is for; only `fine-tune` is read as rows to train on.")
    expires_after: ExpiresAfter | None = Field(default=None, description="Without it the file stays until deleted.")


class FileShown(BaseModel):
    """A file in answers. `datasets` are those that were read from it, by task."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    expires_at: int | None
    status_details: str | None
    sha256: str
    datasets: dict[str, str]
    problems: list[DatasetProblem]


class FileDeleted(BaseModel):
    """What is told of a file that is no more."""

    id: str
    object: Literal["file"]
    deleted: bool


def file_json(file: File, datasets: Mapping[str, str]) -> dict[str, Any]:
    """A file as it stands in answers."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "error" if file.problems else "processed",
        "expires_at": int(file.expires_at.timestamp()) if file.expires_at is not None else None,
        "status_details": told(faults_of(file)) or None,
        "sha256": file.sha256,
        "datasets": dict(datasets),
        "problems": file.problems,
    }


def faults_of(file: File) -> list[Fault]:
    """What the check found wrong with a file."""
    return [Fault(one["pointer"], one["code"], one["detail"], one["remedy"]) for one in file.problems]


def told(faults: Sequence[Fault]) -> str:
    """What is wrong with a file, in one line of text; each detail names its line."""
    more = len(faults) - MOST_TOLD
    return "; ".join(fault.detail for fault in faults[:MOST_TOLD]) + (f"; and {more} more" if more > 0 else "")


def result_json(artifact: Artifact) -> dict[str, Any]:
    """A file that a job has made, as a file."""
    return {
        "id": artifact.id,
        "object": "file",
        "bytes": artifact.size_bytes,
        "created_at": int(artifact.created_at.timestamp()),
        "filename": artifact.filename,
        "purpose": RESULTS,
        "status": "processed",
        "expires_at": None,
        "status_details": None,
        "sha256": artifact.sha256,
        "datasets": {},
        "problems": [],
    }
