"""Store when a session ends, because Citus cannot compute it in an UPDATE."""

from datetime import timedelta

import sqlalchemy as sa
from alembic import op

from contacts_api.settings import Settings

revision = "2026_11_28_store_session_ends"
down_revision = "2026_11_28_fold_by_field"
branch_labels = None
depends_on = None


def upgrade() -> None:
    in_a_month = sa.text("now() + interval '30 days'")
    op.add_column(
        "auth_session",
        sa.Column("ends_at", sa.DateTime(timezone=True), server_default=in_a_month, nullable=False),
    )
    lifetime = timedelta(seconds=Settings().session_seconds)
    op.execute(sa.text("UPDATE auth_session SET ends_at = created_at + :lifetime").bindparams(lifetime=lifetime))


def downgrade() -> None:
    op.drop_column("auth_session", "ends_at")
