"""Files that are to be erased are on record, from before they are stored, and logs can be found by their file."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LOGGED = sa.text("log_key IS NOT NULL")


def upgrade() -> None:
    """Take the step."""
    op.create_table(
        "erasures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.Column("eraser", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_erasures_key", "erasures", ["key"])
    op.create_index("ix_erasures_owner", "erasures", ["owner"])
    op.create_index("ix_jobs_log_key", "jobs", ["log_key"], sqlite_where=LOGGED, postgresql_where=LOGGED)


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_jobs_log_key", "jobs")
    op.drop_table("erasures")
