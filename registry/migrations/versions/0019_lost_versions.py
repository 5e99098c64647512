"""Jobs name the version that had learned them, and that MLflow has lost."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("job", sa.Column("lost_version", sa.Integer()))


def downgrade() -> None:
    """Revert."""
    op.drop_column("job", "lost_version")
