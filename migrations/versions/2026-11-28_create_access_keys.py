"""Create the table of access keys."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_create_access_keys"
down_revision = "2026_11_28_whole_people"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_key",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("owner_id", "id", name="pk_access_key"),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_access_key_owner_id", ondelete="CASCADE"),
    )
    op.create_index("ix_access_key_expires_at", "access_key", ["expires_at"])


def downgrade() -> None:
    op.drop_table("access_key")
