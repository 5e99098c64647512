"""Annotations in Label Studio, and what they taught."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "labelstudioannotation",
        sa.Column("project", sa.String(), primary_key=True),
        sa.Column("annotation_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("document_id", sa.String(), sa.ForeignKey("document.id", ondelete="CASCADE"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("types", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("is_deleted", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_labelstudioannotation_document_id", "labelstudioannotation", ["document_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_table("labelstudioannotation")
