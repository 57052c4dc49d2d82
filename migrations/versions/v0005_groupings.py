"""What was spent on clients says by which grouping of the rows: the guarantees of two groupings do not add up."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step."""
    for table in ("datasets", "privacy_entries"):
        op.add_column(table, sa.Column("grouping", sa.String(length=64), nullable=True))
    # Nobody knows how older files group their rows, so each is a grouping of its own, and so is each older job.
    op.execute("UPDATE datasets SET grouping = sha256 WHERE groups IS NOT NULL")
    op.execute("UPDATE privacy_entries SET grouping = job_id WHERE unit = 'client' AND substr(subject, 1, 4) <> 'pop_'")


def downgrade() -> None:
    """Take it back."""
    for table in ("privacy_entries", "datasets"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("grouping")
