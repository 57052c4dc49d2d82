"""Every setting of the service, read once from `FIFTYTWO_*` variables and checked at start.

Knows nothing of what the settings are used for beyond their bounds; whoever needs one is handed the whole object.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1 << 20


class Settings(BaseSettings):
    """The settings of one installation; the variable of `data_dir` is `FIFTYTWO_DATA_DIR`, and so on."""

    model_config = SettingsConfigDict(env_prefix="FIFTYTWO_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(
        default=Path("fiftytwo-data"), description="Folder of everything the service keeps on this machine."
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL (sqlite or postgresql); without one, SQLite in the data folder."
    )
    redis_url: str | None = Field(
        default=None, description="URL of the broker; without one `fiftytwo serve` starts an embedded broker."
    )
    storage_url: str | None = Field(
        default=None, description="s3://bucket/prefix for files; without one, the folder `objects` in the data folder."
    )
    storage_endpoint: str | None = Field(
        default=None, description="Address of an S3-compatible store that is not Amazon's, such as http://minio:9000."
    )
    bootstrap_key: SecretStr | None = Field(
        default=None,
        min_length=8,
        description="The first admin key; without one a random key is made at the first start and shown once. Should it"
        " be lost, `fiftytwo admin-key` makes another.",
    )
    receipt_key_file: Path | None = Field(
        default=None,
        description="Private key that signs receipts, the same on every machine; without one, made in the data folder.",
    )
    models_dir: Path | None = Field(default=None, description="Folder of local base models in Hugging Face layout.")
    cache_dir: Path | None = Field(
        default=None, description="Folder of base models that were converted; without one, `cache` in the data folder."
    )
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8052, ge=0, le=65535, description="Port the API listens on.")

    log_format: Literal["text", "json"] = Field(
        default="text", description="Form of the log lines on standard error; json is one object a line."
    )
    log_requests: bool = Field(
        default=False, description="Whether the API logs a line a request: method, route, status, seconds, its id."
    )
    mlflow_uri: SecretStr | None = Field(
        default=None,
        description="Tracking server of MLflow that is told what runs record; needs the extra `mlflow`.",
    )
    mlflow_experiment: str = Field(default="fiftytwo", min_length=1, description="Experiment of MLflow that has them.")

    engine_command: str = Field(
        default="", description="Command line that runs one job; without one, `python -m engine` of this interpreter."
    )
    workers: int = Field(default=1, ge=1, le=256, description="Worker processes that `fiftytwo serve` starts.")
    threads_per_job: int = Field(
        default=0, ge=0, le=1024, description="Threads of one job; 0 shares the cores out among the workers."
    )
    lease_seconds: float = Field(default=60, gt=0, description="How long a claimed job may go without a heartbeat.")
    heartbeat_seconds: float = Field(default=15, gt=0, description="How often a worker renews its lease.")
    rescue_seconds: float = Field(default=10, gt=0, description="How often a worker looks for jobs that were lost.")
    max_lapses: int = Field(default=5, ge=1, description="Lapsed leases after which a job fails as worker_lost.")
    stop_grace_seconds: float = Field(
        default=20, gt=0, description="How long a job may take to write its snapshot when it is asked to stop."
    )
    job_memory_bytes: int = Field(
        default=0, ge=0, description="Address space one job's process may use; 0 sets no limit."
    )

    max_upload_bytes: int = Field(default=2 << 30, ge=1, description="Largest upload, as it comes over the wire.")
    max_decompressed_bytes: int = Field(
        default=8 << 30, ge=1, description="Most bytes an upload may come to once it is unpacked and decoded."
    )
    max_rows: int = Field(default=10_000_000, ge=1, description="Most rows of a data set.")
    max_cell_bytes: int = Field(default=16 * MEBIBYTE, ge=1, description="Most bytes of one text or one image file.")
    max_pixels: int = Field(default=50_000_000, ge=1, description="Most pixels of one image.")
    max_open_jobs: int = Field(default=1_000, ge=1, description="Most jobs of a tenant that have not ended.")
    max_json_bytes: int = Field(default=1_000_000, ge=1, description="Largest JSON body of a request.")
    body_stall_seconds: float = Field(
        default=30, gt=0, description="How long a request's body may pause before the request is refused."
    )
    ingest_memory_bytes: int = Field(
        default=4 << 30, ge=256 * MEBIBYTE, description="Address space the check of an upload may use."
    )
    ingest_seconds: int = Field(default=900, ge=1, description="Processor seconds the check of an upload may use.")
    requests_per_second: float = Field(default=50, gt=0, description="Requests a second that one key may make.")
    session_hours: float = Field(
        default=12, gt=0, le=24 * 90, description="How long a browser stays signed in to the panel."
    )
    webhook_private_addresses: bool = Field(
        default=False, description="Whether webhooks may lead to private addresses, such as this network's own."
    )
    idempotency_hours: int = Field(default=24, ge=1, description="How long an Idempotency-Key is remembered.")

    @field_validator("data_dir", "models_dir", "cache_dir", "receipt_key_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'fiftytwo.db'}"

    @property
    def receipt_key(self) -> Path:
        """Where the private key of receipts lies."""
        return self.receipt_key_file or self.data_dir / "receipt_key.pem"

    @property
    def cache(self) -> Path:
        """Where a job keeps what it makes once and needs again."""
        return self.cache_dir or self.data_dir / "cache"

    @property
    def engine_arguments(self) -> list[str]:
        """The command that runs one job, as a list of arguments."""
        return shlex.split(self.engine_command) or [sys.executable, "-m", "engine"]

    @property
    def threads(self) -> int:
        """Threads of one job: as set, else the cores shared out among the workers."""
        return self.threads_per_job or max(1, (os.cpu_count() or 1) // self.workers)
