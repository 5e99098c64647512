"""Names and hashes of documents that were deleted before, and the notes of their feedback, are deleted, too."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("UPDATE auditentry SET before = NULL WHERE entity = 'document'")
    op.execute("UPDATE job SET note = NULL WHERE id NOT IN (SELECT job_id FROM jobdocument)")


def downgrade() -> None:
    """Undo nothing: what was deleted is gone."""
