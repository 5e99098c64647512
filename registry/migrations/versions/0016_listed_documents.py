"""What the list of documents shows and is sorted by, apart from the large rows of the documents; an index of types."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_AT_ONCE = 1000
_LAST_LESSONS = """
SELECT document_id, lesson FROM (
    SELECT jobdocument.document_id, jobdocument.lesson,
        row_number() OVER (PARTITION BY jobdocument.document_id ORDER BY job.number DESC) AS recency
    FROM jobdocument JOIN job ON job.id = jobdocument.job_id WHERE jobdocument.lesson IS NOT NULL
) AS lessons WHERE recency = 1
"""


def upgrade() -> None:
    """Apply."""
    table = op.create_table(
        "listeddocument",
        sa.Column("document_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("annotated_sha256", sa.String(), nullable=True),
        sa.Column("taught_sha256", sa.String(), nullable=True),
        sa.Column("uncertain_values", sa.Float(), nullable=True),
        sa.Column("read_by_version", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["document_id"], ["document.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("document_id"),
    )
    for column in ("name", "created_at"):
        op.create_index(f"ix_listeddocument_{column}", "listeddocument", [column])
    op.create_index("ix_annotation_type", "annotation", ["type", "status", "document_id"])
    connection = op.get_bind()
    taught = dict[str, list[tuple[str, int, int]]]()
    for document_id, lesson in connection.execute(sa.text(_LAST_LESSONS)):
        read = lesson if isinstance(lesson, dict) else json.loads(lesson)
        taught[document_id] = [(each["type"], each["start"], each["end"]) for each in read["annotations"]]
    annotated = dict[str, list[tuple[str, int, int]]]()
    query = "SELECT document_id, type, start, \"end\" FROM annotation WHERE status = 'approved'"
    for document_id, *span in connection.execute(sa.text(query)):
        annotated.setdefault(document_id, []).append((span[0], span[1], span[2]))
    documents = sa.table("document", sa.column("id"), sa.column("filename"), sa.column("created_at", sa.DateTime(True)))
    rows = [
        {
            "document_id": document_id,
            "name": filename.casefold(),
            "created_at": created_at,
            "annotated_sha256": _hash(annotated.get(document_id, [])),
            "taught_sha256": _hash(taught.get(document_id, [])),
        }
        for document_id, filename, created_at in connection.execute(sa.select(*documents.c))
    ]
    for first in range(0, len(rows), _AT_ONCE):
        connection.execute(sa.insert(table), rows[first : first + _AT_ONCE])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_annotation_type", "annotation")
    op.drop_table("listeddocument")


def _hash(spans: list[tuple[str, int, int]]) -> str | None:
    return hashlib.sha256(json.dumps(sorted(spans)).encode()).hexdigest() if spans else None
