"""Add the UIDs of imported contacts, and the keys of calendar feeds."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_exchange"
down_revision = "2026_11_23_failed_attempts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("contact", sa.Column("uid", sa.String(), nullable=True))
    op.create_table(
        "calendar_feed",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", name="pk_calendar_feed"),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_calendar_feed_owner_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("calendar_feed")
    op.drop_column("contact", "uid")
