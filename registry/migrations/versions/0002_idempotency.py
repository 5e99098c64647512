"""Which requests a job answers, and how often its run ended without an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("job") as batch:
        batch.add_column(sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("last_failure", sa.Text(), nullable=True))
        batch.add_column(sa.Column("annotations_sha256", sa.String(), nullable=True))
        batch.add_column(sa.Column("idempotency_key", sa.String(), nullable=True))
        batch.create_index("ix_job_idempotency_key", ["idempotency_key"], unique=True)
    unanswered = sa.text("outcome IS NULL")
    op.create_index("ix_job_unanswered", "job", ["created_at"], sqlite_where=unanswered, postgresql_where=unanswered)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_job_unanswered", "job")
    with op.batch_alter_table("job") as batch:
        batch.drop_index("ix_job_idempotency_key")
        batch.drop_column("idempotency_key")
        batch.drop_column("annotations_sha256")
        batch.drop_column("last_failure")
        batch.drop_column("attempts")
