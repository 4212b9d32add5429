"""Create the mail queue, and add a sequence number for the address of an account."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_28_create_mail"
down_revision = "2026_11_28_create_access_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user", sa.Column("email_seq", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "mail",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("owner_id", sa.Uuid()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_mail"),
    )
    for column in ("address", "owner_id", "created_at"):
        op.create_index(f"ix_mail_{column}", "mail", [column])
    op.create_index(
        "ix_mail_due", "mail", [sa.text("(tries > 0)"), "next_try_at"], postgresql_where=sa.text("done_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("mail")
    op.drop_column("user", "email_seq")
