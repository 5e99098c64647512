"""The order of the jobs, whatever the clock says."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UNANSWERED = sa.text("outcome IS NULL")


def upgrade() -> None:
    """Apply."""
    op.drop_index("ix_job_unanswered", "job")
    op.drop_index("ix_job_created_at", "job")
    with op.batch_alter_table("job") as batch:
        batch.add_column(sa.Column("number", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE job SET number = (SELECT count(*) FROM job AS earlier"
        " WHERE (earlier.created_at, earlier.id) <= (job.created_at, job.id))"
    )
    with op.batch_alter_table("job") as batch:
        batch.alter_column("number", server_default=None)
        batch.create_index("ix_job_number", ["number"])
    op.create_index("ix_job_unanswered", "job", ["number"], sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_job_unanswered", "job")
    with op.batch_alter_table("job") as batch:
        batch.drop_index("ix_job_number")
        batch.drop_column("number")
    op.create_index("ix_job_created_at", "job", ["created_at"])
    op.create_index("ix_job_unanswered", "job", ["created_at"], sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED)
