"""What is withdrawn, what remains of a deleted document, and what a consolidated model knew of both."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobdocument", sa.Column("withdrawn_by", sa.String(), nullable=True))
    op.add_column("job", sa.Column("candidate_withdrawals", sa.Integer(), nullable=True))
    op.create_table(
        "deleteddocument",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("learned_from", sa.Integer(), nullable=True),
        sa.Column("unlearning_job_id", sa.String(), sa.ForeignKey("job.id"), nullable=True),
        sa.Column("unlearned_from", sa.Integer(), nullable=True),
        sa.Column("text_hash", sa.String(), nullable=True),
    )
    op.create_index("ix_deleteddocument_unlearning_job_id", "deleteddocument", ["unlearning_job_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("deleteddocument")
    op.drop_column("job", "candidate_withdrawals")
    op.drop_column("jobdocument", "withdrawn_by")
