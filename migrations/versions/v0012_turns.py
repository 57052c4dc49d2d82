"""Which tenant's jobs were claimed last, by which tenants take turns; a claim finds its job out of an index alone."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step; nobody has been served yet."""
    op.create_table(
        "job_turns",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("claim", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.drop_index("ix_jobs_state", "jobs")
    op.create_index("ix_jobs_state", "jobs", ["state", "tenant", "kind", "priority", "id"])


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_jobs_state", "jobs")
    op.create_index("ix_jobs_state", "jobs", ["state", "tenant", "kind"])
    op.drop_table("job_turns")
