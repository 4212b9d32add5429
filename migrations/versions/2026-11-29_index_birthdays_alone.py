"""Keep contacts without a birthday out of the index by birthday.

It was the smallest of those that begin with the owner. So it was what PostgreSQL looked through for each id of an owner
whose contacts were newer than its statistics: all of them, instead of one.
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
    # Last, since nothing can be read from then on to the end of this transaction.
    op.drop_index("ix_contact_by_birthday", "contact")


def downgrade() -> None:
    op.create_index("ix_contact_by_birthday", "contact", ["owner_id", "birthday"])
    op.drop_index("ix_contact_with_birthday", "contact")
