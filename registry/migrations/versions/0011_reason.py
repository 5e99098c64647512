"""Why somebody promoted a version."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("auditentry", sa.Column("reason", sa.Text(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("auditentry", "reason")
