"""An index of the documents' lengths, by which a document is found from its text."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_document_character_count", "document", ["character_count"])


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_document_character_count", "document")
