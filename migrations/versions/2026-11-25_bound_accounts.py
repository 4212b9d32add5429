"""Prepare for cleanup and limits.

Adds indexes for deleting old rows, upper bounds of contact counts, running imports, and a mark for deleted accounts
that still have rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_bounds"
down_revision = "2026_11_23_exchange"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_user_erased_at", "user", ["erased_at"], postgresql_where=sa.text("erased_at IS NOT NULL"))
    op.create_index("ix_ended_session_ended_at", "ended_session", ["ended_at"])
    op.create_index("ix_failed_attempt_failed_at", "failed_attempt", ["failed_at"])
    op.create_table(
        "contact_tally",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("at_most", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", name="pk_contact_tally"),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_contact_tally_owner_id", ondelete="CASCADE"),
    )
    op.create_table(
        "running_import",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("alive_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", name="pk_running_import"),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_running_import_owner_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("running_import")
    op.drop_table("contact_tally")
    op.drop_index("ix_failed_attempt_failed_at", "failed_attempt")
    op.drop_index("ix_ended_session_ended_at", "ended_session")
    op.drop_index("ix_user_erased_at", "user")
    op.drop_column("user", "erased_at")
