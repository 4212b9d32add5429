"""Add birthdays without a year, labels and details. Rewrites no rows, so the number of contacts does not matter."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_whole_people"
down_revision = "2026_11_28_store_session_ends"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # From now on, the application sets `birthday`. Stored values stay.
    op.execute("ALTER TABLE contact ALTER COLUMN birthday DROP EXPRESSION")
    for name in ("labels", "details"):
        op.add_column("contact", sa.Column(name, sa.String(), server_default="[]", nullable=False))


def downgrade() -> None:
    # Data that only these columns hold is lost.
    op.drop_index("ix_contact_by_birthday", "contact")
    for name in ("details", "labels", "birthday"):
        op.drop_column("contact", name)
    expression = "(extract(month from date_of_birth) * 100 + extract(day from date_of_birth))::smallint"
    op.add_column("contact", sa.Column("birthday", sa.SmallInteger(), sa.Computed(expression)))
    op.create_index("ix_contact_by_birthday", "contact", ["owner_id", "birthday"])
