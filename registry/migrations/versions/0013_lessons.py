"""What each job teaches of each document, as its run read it; filled in for what is learned already."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_job = sa.table("job", *map(sa.column, ("id", "number", "type", "created_at")), sa.column("outcome", sa.JSON))
_job_document = sa.table("jobdocument", sa.column("job_id"), sa.column("document_id"), sa.column("lesson", sa.JSON))
_annotation = sa.table(
    "annotation",
    *map(sa.column, ("id", "document_id", "type", "start", "end", "revision", "reviewer", "status", "created_at")),
)
_COLUMNS: dict[str, Any] = {
    "lesson": sa.JSON(),
    "read_by": sa.String(),
    "contradiction": sa.Text(),
}


def upgrade() -> None:
    """Apply; what is learned counts as read now."""
    for name, column_type in _COLUMNS.items():
        op.add_column("jobdocument", sa.Column(name, column_type, nullable=True))
    op.add_column("job", sa.Column("insisted_by", sa.String(), nullable=True))
    connection = op.get_bind()
    query = sa.select(_annotation.c.type, sa.func.min(_annotation.c.created_at)).group_by(_annotation.c.type)
    first_used = connection.execute(query.where(_annotation.c.status == "approved")).all()
    for document_id, (job_id, reviewed_at) in _list_learned().items():
        query = sa.select(_annotation).where(_annotation.c.document_id == document_id)
        annotations = connection.execute(query.where(_annotation.c.status == "approved")).mappings().all()
        reviewed = {name for name, first in first_used if first <= reviewed_at} | {each["type"] for each in annotations}
        lesson = {
            "annotations": [
                {name: each[name] for name in ("id", "type", "start", "end", "revision", "reviewer")}
                for each in annotations
            ],
            "reviewed_types": sorted(reviewed),
        }
        of_document = sa.and_(_job_document.c.document_id == document_id, _job_document.c.job_id == job_id)
        connection.execute(sa.update(_job_document).where(of_document).values(lesson=lesson))


def downgrade() -> None:
    """Undo."""
    op.drop_column("job", "insisted_by")
    for name in _COLUMNS:
        op.drop_column("jobdocument", name)


def _list_learned() -> dict[str, tuple[str, Any]]:
    """Return the job that taught each learned document last, and when that document's last job was created."""
    query = sa.select(_job_document.c.document_id, _job).where(_job.c.id == _job_document.c.job_id)
    learned, reviewed_at = dict[str, str](), dict[str, Any]()
    for row in op.get_bind().execute(query.order_by(_job.c.number)):
        reviewed_at[row.document_id] = row.created_at
        is_promoted = row.outcome is not None and row.outcome["decision"] in {"promoted", "not_trained"}
        if is_promoted:
            learned[row.document_id] = row.id
        elif row.outcome is not None and row.type != "training_run":
            learned.pop(row.document_id, None)
    return {document_id: (job_id, reviewed_at[document_id]) for document_id, job_id in learned.items()}
