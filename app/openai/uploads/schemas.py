"""Uploads in parts as they stand in requests and answers."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.openai.files.schemas import ExpiresAfter, FileShown, Purpose
from app.openai_tables.models import Upload, UploadPart
from app.schemas import Name
from app.unfit import lenient

MOST_PARTS = 10_000
PENDING, COMPLETED, CANCELLED, EXPIRED = "pending", "completed", "cancelled", "expired"
Id = Annotated[str, StringConstraints(max_length=64)]


class UploadCreate(BaseModel):
    """A file that will come in parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stand_ins: ClassVar[Mapping[str, Any]] = {"filename": "file", "mime_type": "text/plain", "purpose": "user_data"}

    bytes: Annotated[int, Field(strict=True, ge=1, lt=2**53)] = Field(description="How large the file will be.")
    filename: Name = Field(description="What it is called.")
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="Its media type; what it is read as follows from its content."
    )
    purpose: Purpose = Field(description="What it is for; only `fine-tune` is read as rows to train on.")
    expires_after: ExpiresAfter | None = Field(default=None, description="How long the file is kept.")


UploadWanted = Annotated[UploadCreate, lenient(lambda _: UploadCreate)]


class UploadComplete(BaseModel):
    """The parts in their order, and what they come to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part_ids: list[Id] = Field(min_length=1, max_length=MOST_PARTS, description="In the order of the file.")
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{32}$")] | None = Field(
        default=None, description="Of the whole file, in hex: to know that nothing was lost on the way."
    )


CompleteWanted = Annotated[UploadComplete, lenient(lambda _: UploadComplete)]


class UploadShown(BaseModel):
    """An upload in answers; `bytes` is what was announced."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileShown | None


class PartShown(BaseModel):
    """A part in answers."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


def upload_json(upload: Upload, file: dict[str, Any] | None = None) -> dict[str, Any]:
    """An upload as it stands in answers, with the file that it became."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.size_bytes,
        "created_at": int(upload.created_at.timestamp()),
        "expires_at": int(upload.expires_at.timestamp()),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "file": file,
    }


def part_json(part: UploadPart) -> dict[str, Any]:
    """A part as it stands in answers."""
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": int(part.created_at.timestamp()),
        "upload_id": part.upload_id,
    }
