"""When a job was answered, and the decision of its outcome as a column, with indexes for the metrics."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_FILL = {
    "postgresql": "UPDATE job SET answered_at = CAST(outcome ->> 'decided_at' AS timestamptz)",
    "sqlite": "UPDATE job SET answered_at = strftime('%Y-%m-%d %H:%M:%f000', outcome ->> 'decided_at')",
}


def upgrade() -> None:
    """Apply."""
    is_stored = True if op.get_bind().dialect.name == "postgresql" else None  # SQLite adds virtual columns only
    decision = sa.Computed("outcome ->> 'decision'", persisted=is_stored)
    op.add_column("job", sa.Column("decision", sa.String(), decision, nullable=True))
    op.add_column("job", sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(_FILL[op.get_bind().dialect.name])
    is_contradicted = sa.text("contradiction IS NOT NULL")
    op.create_index(
        "ix_jobdocument_contradicted",
        "jobdocument",
        ["job_id"],
        sqlite_where=is_contradicted,
        postgresql_where=is_contradicted,
    )
    op.create_index("ix_job_decision", "job", ["type", "decision", "created_at", "answered_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_job_decision", "job")
    op.drop_index("ix_jobdocument_contradicted", "jobdocument")
    op.drop_column("job", "answered_at")
    op.drop_column("job", "decision")
