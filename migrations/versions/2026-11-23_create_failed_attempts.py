"""Create the table that counts wrong passwords."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_failed_attempts"
down_revision = "2026_11_23_contacts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "failed_attempt",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_failed_attempt"),
    )


def downgrade() -> None:
    op.drop_table("failed_attempt")
