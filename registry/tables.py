"""The tables of the database."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import uuid4

from sqlalchemy import JSON, Column, DateTime, Index, Integer, String, Text, TypeDecorator, text
from sqlalchemy.engine import Dialect
from sqlmodel import Field, SQLModel, UniqueConstraint

MAX_NAME = 200  # characters of a person's


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time that comes back as UTC: from SQLite without a zone, from PostgreSQL in the server's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored time as UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid4())


def _foreign_key(target: str, **kwargs: Any) -> Any:
    return Field(foreign_key=target, ondelete="CASCADE", index=True, **kwargs)


class DocumentBase(SQLModel):
    """What a client sees of a document."""

    id: str = Field(default_factory=_new_id, primary_key=True)
    filename: str
    media_type: str
    sha256: str = Field(unique=True, description="Of the uploaded bytes")
    size_bytes: int
    page_count: int
    character_count: int
    held_out: bool = Field(description="Feedback on a held-out document measures models instead of teaching them")
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime, index=True)


class Document(DocumentBase, table=True):
    """A contract: its text here, its original file and the characters' places in the document store."""

    text: str = Field(sa_type=Text)


class AnnotationStatus(StrEnum):
    """Only approved annotations teach."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class AnnotationBase(SQLModel):
    """An entity as a reviewer sees it; offsets are Python string indices into the document's text, `end` exclusive."""

    type: str = Field(min_length=1, max_length=100)
    value: str = Field(min_length=1, sa_type=Text)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    reviewer: str | None = Field(default=None, max_length=MAX_NAME)
    notes: str | None = Field(default=None, sa_type=Text)
    status: AnnotationStatus = Field(default=AnnotationStatus.APPROVED, sa_type=String)


_revision = Column("revision", Integer, nullable=False)  # SQLAlchemy overwrites no row that has another one by now


class Annotation(AnnotationBase, table=True):
    """One marked entity."""

    __table_args__ = (UniqueConstraint("document_id", "type", "start", "end"),)
    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": _revision}

    id: str = Field(default_factory=_new_id, primary_key=True)
    document_id: str = _foreign_key("document.id")
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    revision: int = Field(default=1, sa_column=_revision, description="1, then one more with each change")


class JobType(StrEnum):
    """What asked for the training."""

    FEEDBACK = "feedback"
    TRAINING_RUN = "training_run"


_UNANSWERED = text("outcome IS NULL")
_number = Column(
    "number", Integer, nullable=False, index=True, default=text("(SELECT coalesce(max(number), 0) + 1 FROM job)")
)


class Job(SQLModel, table=True):
    """A request to learn: stored before it is launched, answered by the flow run that claims it.

    Its state, history and progress are Prefect's; only what must outlive Prefect's database stands here.
    """

    __table_args__ = (Index("ix_job_unanswered", "number", sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED),)

    id: str = Field(default_factory=_new_id, primary_key=True)
    type: str
    triggered_by: str
    note: str | None = Field(default=None, sa_type=Text)
    number: int | None = Field(
        default=None, sa_column=_number, description="In the order of their storing, whatever the clock says"
    )
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    flow_run_id: str | None = Field(default=None, index=True, description="The run launched for this job")
    claimed_by: str | None = Field(
        default=None, index=True, description="The run that learns from it, not always its own"
    )
    annotations_sha256: str | None = Field(default=None, description="Of the document's annotations at the feedback")
    idempotency_key: str | None = Field(
        default=None, unique=True, index=True, description="The client's, behind the name of its API key"
    )
    attempts: int = Field(default=0, description="Runs that ended without an answer")
    last_failure: str | None = Field(default=None, sa_type=Text, description="Why the last of those ended")
    outcome: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))

    @property
    def has_failed(self) -> bool:
        """Tell whether the answer is that no model was made."""
        return bool(self.outcome and self.outcome.get("failed"))


class JobDocument(SQLModel, table=True):
    """A document a job learns from."""

    job_id: str = _foreign_key("job.id", primary_key=True)
    document_id: str = _foreign_key("document.id", primary_key=True)


class Correction(SQLModel, table=True):
    """A value that a model and a reviewer once disagreed on; the annotations of today say who is right."""

    document_id: str = _foreign_key("document.id", primary_key=True)
    type: str = Field(primary_key=True)
    value: str = Field(primary_key=True, sa_type=Text, description="Normalised as for the document-level value F1")


class ApiKey(SQLModel, table=True):
    """Who may do what; of the key itself only a hash is kept."""

    id: str = Field(primary_key=True, description="Stands in the key")
    name: str
    secret_hash: str = Field(description="By argon2, of the 256 random bits in the key")
    scopes: list[str] = Field(sa_type=JSON)
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="To the minute")
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AuditAction(StrEnum):
    """What was done."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


class AuditEntry(SQLModel, table=True):
    """One change by one principal; entries are only added."""

    id: int | None = Field(default=None, primary_key=True, description="In the order of the changes")
    at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    principal: str = Field(description="The name of the API key")
    action: AuditAction = Field(sa_type=String)
    entity: str = Field(description="annotation, apikey, document or job")
    entity_id: str = Field(index=True)
    document_id: str | None = Field(default=None, index=True, description="An annotation's document")
    before: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))
