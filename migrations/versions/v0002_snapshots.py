"""Snapshots in a remote store become rows, and a job counts the batches that its run has told.

What an earlier version noted of snapshots in a remote store is not carried over: a job that is under way begins anew.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Take the step."""
    op.add_column("jobs", sa.Column("batches", sa.Integer(), nullable=False, server_default="0"))
    op.drop_column("jobs", "snapshots")
    op.create_table(
        "job_snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("storage_key", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_job_snapshots_job_id", "job_snapshots", ["job_id"])
    op.create_index("ix_job_snapshots_storage_key", "job_snapshots", ["storage_key"])


def downgrade() -> None:
    """Take it back."""
    op.drop_table("job_snapshots")
    op.add_column("jobs", sa.Column("snapshots", DOCUMENT, nullable=False, server_default="[]"))
    op.drop_column("jobs", "batches")
