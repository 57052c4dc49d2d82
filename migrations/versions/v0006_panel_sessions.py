"""The sessions of the panel: a browser is signed in with a key, until then."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step."""
    op.create_table(
        "panel_sessions",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token_sha256"),
    )
    op.create_index("ix_panel_sessions_key_id", "panel_sessions", ["key_id"])
    op.create_index("ix_panel_sessions_expires_at", "panel_sessions", ["expires_at"])


def downgrade() -> None:
    """Take it back."""
    op.drop_table("panel_sessions")
