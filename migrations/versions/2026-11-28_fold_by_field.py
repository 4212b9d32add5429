"""Add the identity of a contact, and the version of its folding rules. `reindex` updates existing contacts."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_fold_by_field"
down_revision = "2026_11_25_bounds"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("contact", sa.Column("identity", sa.String(), nullable=True))
    op.add_column("contact", sa.Column("folding", sa.SmallInteger(), server_default="1", nullable=False))


def downgrade() -> None:
    # Restore the format of the previous release: one line for each of five texts, without field names.
    lines = ", ".join(
        rf"split_part(split_part(search_text, E'\n{name} ', 2), E'\n', 1)"
        for name in ("FIRSTNAME", "LASTNAME", "EMAIL", "PHONENUMBER")
    )
    digits = "regexp_replace(coalesce(phone_number, ''), '[^0-9]', '', 'g')"
    op.execute(rf"UPDATE contact SET search_text = concat_ws(E'\n', {lines}, {digits}) WHERE folding > 1")  # nosec B608 (of constants)
    op.drop_column("contact", "folding")
    op.drop_column("contact", "identity")
