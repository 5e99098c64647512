"""Every document teaches: no document is held out, and a correction needs no row of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_table("correction")
    op.execute("ALTER TABLE document DROP COLUMN held_out")


def downgrade() -> None:
    """Undo; the corrections are not restored, and no document is held out."""
    op.add_column("document", sa.Column("held_out", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "correction",
        sa.Column("document_id", sa.String(), sa.ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("type", sa.String(), primary_key=True),
        sa.Column("value", sa.Text(), primary_key=True),
    )
    op.create_index("ix_correction_document_id", "correction", ["document_id"])
