"""Experiments, their jobs, what people judge of them, and who may."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_DOCUMENT = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Take the step."""
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("task", sa.String(length=32), nullable=False),
        sa.Column("metric", sa.String(length=32), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("baseline", _DOCUMENT, nullable=False),
        sa.Column("treatments", _DOCUMENT, nullable=False),
        sa.Column("seeds", _DOCUMENT, nullable=False),
        sa.Column("margin", sa.Float(), nullable=False),
        sa.Column("human_items", sa.Integer(), nullable=True),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("figures", _DOCUMENT, nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_experiments_tenant_id", "experiments", ["tenant", "id"])
    op.create_table(
        "experiment_jobs",
        _experiment(),
        sa.Column("arm", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id", "arm", "seed"),
    )
    _judgement()


def _judgement() -> None:
    op.create_table(
        "experiment_items",
        _experiment(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("shown", _DOCUMENT, nullable=False),
        sa.Column("answers", _DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id", "number"),
    )
    op.create_index("ix_experiment_items_dataset_id", "experiment_items", ["dataset_id"])
    op.create_table(
        "experiment_ballots",
        _experiment(),
        sa.Column("rater", sa.String(length=64), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("first_arm", sa.Integer(), nullable=False),
        sa.Column("second_arm", sa.Integer(), nullable=False),
        sa.Column("preferred", sa.String(length=8), nullable=False),
        sa.Column("cast_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id", "rater", "item", "first_arm", "second_arm"),
    )
    op.create_table(
        "experiment_raters",
        _experiment(),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiments.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("experiment_id", "name"),
        sa.UniqueConstraint("key_id"),
    )


def _experiment() -> sa.Column[str]:
    return sa.Column("experiment_id", sa.String(length=40), nullable=False)


def downgrade() -> None:
    """Take it back."""
    for table in ("raters", "ballots", "items", "jobs"):
        op.drop_table(f"experiment_{table}")
    op.drop_table("experiments")
