"""Create the table of contacts."""

import logging

import sqlalchemy as sa
from alembic import op

revision = "2026_11_23_contacts"
down_revision = "2026_11_23_accounts"
branch_labels = None
depends_on = None

NOW = sa.func.now()
BIRTHDAY = "(extract(month from date_of_birth) * 100 + extract(day from date_of_birth))::smallint"
AVAILABLE = "SELECT count(*) FROM pg_available_extensions WHERE name IN ('pg_trgm', 'btree_gin')"


def upgrade() -> None:
    op.create_table(
        "contact",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("first_name", sa.String(), nullable=False),
        sa.Column("last_name", sa.String(), nullable=True),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("phone_number", sa.String(), nullable=True),
        sa.Column("date_of_birth", sa.Date(), nullable=True),
        sa.Column("additional_info", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("search_text", sa.String(), nullable=False),
        sa.Column("sort_name", sa.String(collation="C"), nullable=False),
        sa.Column("birthday", sa.SmallInteger(), sa.Computed(BIRTHDAY, persisted=True), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id", name="pk_contact"),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name="fk_contact_owner_id", ondelete="CASCADE"),
    )
    op.create_index("ix_contact_by_name", "contact", ["owner_id", "sort_name", "id"])
    op.create_index("ix_contact_by_creation", "contact", ["owner_id", "created_at", "id"])
    op.create_index("ix_contact_by_update", "contact", ["owner_id", "updated_at", "id"])
    op.create_index("ix_contact_by_birthday", "contact", ["owner_id", "birthday"])
    _index_trigrams(op.get_bind())


def _index_trigrams(connection: sa.Connection) -> None:
    """Create a trigram index for searches, if the server has the extensions and we may create them."""
    if connection.scalar(sa.text(AVAILABLE)) != 2:
        return
    try:
        with connection.begin_nested():
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS btree_gin"))
            connection.execute(
                sa.text("CREATE INDEX ix_contact_by_trigram ON contact USING gin (owner_id, search_text gin_trgm_ops)")
            )
    except sa.exc.DBAPIError as error:
        logging.getLogger("alembic").warning("Searches go without a trigram index: %s", str(error.orig).strip())


def downgrade() -> None:
    op.drop_table("contact")
