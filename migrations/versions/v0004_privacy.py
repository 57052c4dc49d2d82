"""The privacy ledger, the rows that it knows again, populations and their rounds, and files that a job alone needs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step."""
    _datasets()
    _ledger()
    _federations()
    _updates()
    op.create_table(
        "job_files",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("storage_key", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name"),
    )
    op.create_index("ix_job_files_storage_key", "job_files", ["storage_key"])


def _datasets() -> None:
    with op.batch_alter_table("datasets") as batch:
        batch.add_column(sa.Column("groups", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("lineage", sa.String(length=64), nullable=True))
        batch.add_column(sa.Column("budgeted", sa.Boolean(), nullable=False, server_default=sa.false()))
    # Nothing is known of the rows of what was uploaded before, so each content is a subject of its own.
    op.execute("UPDATE datasets SET lineage = sha256")
    with op.batch_alter_table("datasets") as batch:
        batch.alter_column("lineage", existing_type=sa.String(length=64), nullable=False)
        batch.alter_column("budgeted", existing_type=sa.Boolean(), server_default=None)
    op.create_index("ix_datasets_tenant_lineage", "datasets", ["tenant", "lineage"])


def _ledger() -> None:
    op.create_table(
        "privacy_accounts",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("epsilon", sa.Float(), nullable=True),
        sa.Column("delta", sa.Float(), nullable=True),
        sa.Column("renyi_order", sa.Float(), nullable=True),
        sa.Column("open_job", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "subject", name="uq_privacy_accounts_subject"),
    )
    op.create_table(
        "privacy_entries",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("mechanism", sa.String(length=16), nullable=False),
        sa.Column("sampling", sa.String(length=16), nullable=False),
        sa.Column("sampling_rate", sa.Float(), nullable=False),
        sa.Column("noise_multiplier", sa.Float(), nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("nominal", sa.BigInteger(), nullable=False),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_privacy_entries_subject", "privacy_entries", ["tenant", "subject"])
    op.create_index("ix_privacy_entries_job_id", "privacy_entries", ["job_id"])
    op.create_table(
        "privacy_rows",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("row_hash", sa.BigInteger(), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "row_hash"),
    )
    op.create_index("ix_privacy_rows_subject", "privacy_rows", ["subject"])


def _federations() -> None:
    op.create_table(
        "populations",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("clients", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("min_clients", sa.BigInteger(), nullable=False),
        sa.Column("expected_clients", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_populations_tenant_id", "populations", ["tenant", "id"])
    op.create_table(
        "rounds",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("population_id", sa.String(length=40), nullable=False),
        sa.Column("base", sa.String(length=40), nullable=True),
        sa.Column("storage_key", sa.String(length=80), nullable=True),
        sa.Column("format", sa.String(length=8), nullable=False),
        sa.Column("clip_norm", sa.Float(), nullable=False),
        sa.Column("noise_multiplier", sa.Float(), nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("expected_clients", sa.BigInteger(), nullable=False),
        sa.Column("sampling_rate", sa.Float(), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=True),
        sa.Column("tensors", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["population_id"], ["populations.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_rounds_tenant_id", "rounds", ["tenant", "id"])
    op.create_index("ix_rounds_storage_key", "rounds", ["storage_key"])


def _updates() -> None:
    op.create_table(
        "round_updates",
        sa.Column("round_id", sa.String(length=40), nullable=False),
        sa.Column("client", sa.String(length=128), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("storage_key", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("round_id", "client"),
    )
    op.create_index("ix_round_updates_storage_key", "round_updates", ["storage_key"])


def downgrade() -> None:
    """Take it back; what was spent is forgotten with it."""
    for table in ("job_files", "round_updates", "rounds", "populations"):
        op.drop_table(table)
    for table in ("privacy_rows", "privacy_entries", "privacy_accounts"):
        op.drop_table(table)
    op.drop_index("ix_datasets_tenant_lineage", "datasets")
    with op.batch_alter_table("datasets") as batch:
        for column in ("budgeted", "lineage", "groups"):
            batch.drop_column(column)
