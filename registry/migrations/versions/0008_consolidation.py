"""What a job of the type `consolidation` hands over."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("job", sa.Column("candidate_run_id", sa.String(), nullable=True))
    op.add_column("job", sa.Column("candidate_snapshot", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("job", "candidate_snapshot")
    op.drop_column("job", "candidate_run_id")
