"""Keep contacts without a birthday out of the index by birthday.

The full index was the smallest index that begins with the owner. With outdated statistics, PostgreSQL chose it over the
primary key to find a contact by id, and then scanned all contacts of the owner.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_29_index_birthdays_alone"
down_revision = "2026_11_28_create_mail"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text("birthday IS NOT NULL")
    op.create_index("ix_contact_with_birthday", "contact", ["owner_id", "birthday"], postgresql_where=where)
    # Last, because it blocks reads until the end of this transaction.
    op.drop_index("ix_contact_by_birthday", "contact")


def downgrade() -> None:
    op.create_index("ix_contact_by_birthday", "contact", ["owner_id", "birthday"])
    op.drop_index("ix_contact_with_birthday", "contact")
