"""The tables of the database."""

from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Computed,
    DateTime,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    func,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel, UniqueConstraint

from embeddinggemma_feasibility.annotation_data import Span
from registry.outcome import Outcome

MAX_NAME = 200  # characters of a reviewer's or a key's name
MAX_VALUE = 10_000  # characters of an annotation; the longest in 408 contracts of CUAD has 2,586


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always loaded as UTC; SQLite returns it without a zone, PostgreSQL in the server's zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored time as UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class ModelColumn(TypeDecorator[BaseModel]):
    """A pydantic model, stored as JSON."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, model: type[BaseModel]) -> None:
        super().__init__()
        self.model = model

    def process_bind_param(self, value: BaseModel | None, dialect: Dialect) -> dict[str, Any] | None:
        """Return what is stored."""
        return value.model_dump(mode="json") if value else None

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> BaseModel | None:
        """Return the stored model."""
        return self.model.model_validate(value) if value else None

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:
        """Compare fields of the JSON as plain JSON, as SQLAlchemy asks of a decorated JSON type."""
        return self.impl_instance.coerce_compared_value(op, value)


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return str(uuid4())


def _foreign_key(target: str, **kwargs: Any) -> Any:
    return Field(foreign_key=target, ondelete="CASCADE", index=True, **kwargs)


class DocumentBase(SQLModel):
    """The fields of a document that clients see."""

    id: str = Field(default_factory=_new_id, primary_key=True)
    filename: str
    media_type: str
    sha256: str = Field(unique=True, description="Hash of the uploaded bytes")
    size_bytes: int
    page_count: int
    character_count: int = Field(index=True)
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime, index=True)


class Document(DocumentBase, table=True):
    """A contract with its text; the document store holds its original file and the boxes of its characters."""

    text: str = Field(sa_type=Text)


class ListedDocument(SQLModel, table=True):
    """What the list of documents shows of one and is sorted by, apart from the document's own row, which is large."""

    document_id: str = Field(foreign_key="document.id", ondelete="CASCADE", primary_key=True)
    name: str = Field(index=True, description="The file name, case-folded")
    created_at: datetime = Field(sa_type=UtcDateTime, index=True)
    annotated_sha256: str | None = Field(default=None, description="Hash of its approved annotations; null for none")
    taught_sha256: str | None = Field(default=None, description="The same of the annotations in its last lesson")
    uncertain_values: float | None = Field(
        default=None, description="The number of values that a version is expected to read wrong; null if unknown"
    )
    read_by_version: str | None = Field(default=None, description="That version")


class DeletedDocument(SQLModel, table=True):
    """What remains of a deleted document: when it was deleted, and which versions of the model have learned it.

    Without `learned_from`, no version has. Otherwise, a job of the type `unlearning` has a version made without it.
    """

    id: str = Field(primary_key=True)
    deleted_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    learned_from: int | None = Field(default=None, description="The first version that may have learned it")
    unlearning_job_id: str | None = Field(default=None, foreign_key="job.id", index=True)
    unlearned_from: int | None = Field(
        default=None, description="The version that was made without it; null until then, as for one never learned"
    )
    text_hash: str | None = Field(
        default=None, description="`hash_text` of its text, to delete what is cached of it; null once it is unlearned"
    )


class AnnotationStatus(StrEnum):
    """Models learn from approved annotations only."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class AnnotationBase(SQLModel):
    """An entity marked by a reviewer; offsets are Python string indices into the document's text, `end` exclusive."""

    type: str = Field(min_length=1, max_length=100)
    value: str = Field(min_length=1, sa_type=Text)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    reviewer: str | None = Field(default=None, max_length=MAX_NAME)
    notes: str | None = Field(default=None, sa_type=Text)
    status: AnnotationStatus = Field(default=AnnotationStatus.APPROVED, sa_type=String)


_revision = Column("revision", Integer, nullable=False)  # SQLAlchemy raises StaleDataError if it has changed


class Annotation(AnnotationBase, table=True):
    """A stored annotation."""

    __table_args__ = (
        UniqueConstraint("document_id", "type", "start", "end"),
        Index("ix_annotation_type", "type", "status", "document_id"),
    )
    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": _revision}

    id: str = Field(default_factory=_new_id, primary_key=True)
    document_id: str = _foreign_key("document.id")
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    revision: int = Field(default=1, sa_column=_revision, description="Starts at 1 and grows by 1 with each change")


class JobType(StrEnum):
    """What requested the training, the hand-over of a consolidated model, or a model without what was withdrawn."""

    FEEDBACK = "feedback"
    TRAINING_RUN = "training_run"
    CONSOLIDATION = "consolidation"
    UNLEARNING = "unlearning"


_UNANSWERED = text("outcome IS NULL")
_CONTRADICTED = text("contradiction IS NOT NULL")
_decision = Column("decision", String, Computed("outcome ->> 'decision'"), nullable=True)
_number = Column(
    "number", Integer, nullable=False, index=True, default=text("(SELECT coalesce(max(number), 0) + 1 FROM job)")
)


class Job(SQLModel, table=True):
    """A request to learn: stored before a flow run is launched for it, answered by the run that claims it.

    State, history and progress of the run are in Prefect. This row holds what must outlive Prefect's database;
    `feedback/job_state.py` combines both.
    """

    __table_args__ = (
        Index("ix_job_unanswered", "number", sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED),
        Index("ix_job_decision", "type", "decision", "created_at", "answered_at"),  # all that the metrics read
    )
    model_config = ConfigDict(ignored_types=(hybrid_property,))  # type: ignore[assignment]

    id: str = Field(default_factory=_new_id, primary_key=True)
    type: JobType = Field(sa_type=String)
    triggered_by: str
    note: str | None = Field(default=None, sa_type=Text)
    number: int | None = Field(
        default=None, sa_column=_number, description="Jobs are ordered by it, since the clock may be set back"
    )
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    launched_run_id: str | None = Field(default=None, index=True, description="The flow run launched for this job")
    claiming_run_id: str | None = Field(
        default=None, index=True, description="The flow run that answers it, which may be that of another job"
    )
    annotations_sha256: str | None = Field(default=None, description="Hash of the document's annotations when stored")
    idempotency_key: str | None = Field(
        default=None, unique=True, index=True, description="The id of the API key, a space, the client's own key"
    )
    failures: int = Field(default=0, description="Number of runs that ended without an answer")
    last_failure: str | None = Field(default=None, sa_type=Text, description="Why the last of those runs ended")
    paused_until: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="No run is launched for this job before"
    )
    outcome: Outcome | None = Field(default=None, sa_column=Column(ModelColumn(Outcome)), description="The answer")
    decision: str | None = Field(default=None, sa_column=_decision, description="The outcome's, kept by the database")
    answered_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="When the answer was stored; a promoted version serves by then"
    )
    insisted_by: str | None = Field(
        default=None, description="Who has it taught though it contradicts what was learned, or makes the model worse"
    )
    candidate_run_id: str | None = Field(
        default=None, description="The MLflow run of the consolidated model; null if no model could be made"
    )
    candidate_snapshot: int | None = Field(
        default=None, description="All jobs up to this number were answered before that model's documents were read"
    )

    candidate_withdrawals: int | None = Field(
        default=None,
        description="All jobs of the type `unlearning` up to this number were stored before those documents were read",
    )
    lost_version: int | None = Field(
        default=None, description="The version that a run had made for this job, and that MLflow has lost"
    )

    @hybrid_property
    def run_id(self) -> str | None:
        """Return the run that is to answer the job: the one that claimed it or, before, the one launched for it."""
        return self.claiming_run_id or self.launched_run_id

    @run_id.inplace.expression
    @classmethod
    def _run_id_expression(cls) -> ColumnElement[str | None]:
        return func.coalesce(cls.claiming_run_id, cls.launched_run_id)


class LessonAnnotation(BaseModel):
    """An approved annotation as a job teaches it."""

    id: str
    type: str
    start: int
    end: int
    revision: int
    reviewer: str | None

    @property
    def span(self) -> Span:
        """Return where and as what it marks the text."""
        return Span(self.start, self.end, self.type)


class Lesson(BaseModel):
    """What a job teaches of a document: its approved annotations, and the types that its reviewer looked for.

    It is partial if the reviewer looked for some types alone, as in a Label Studio project, not for all there were.
    """

    annotations: list[LessonAnnotation]
    reviewed_types: list[str]
    is_partial: bool = False

    def restrict(self, types: Collection[str]) -> "Lesson":
        """Return the partial lesson about these types."""
        annotations = [each for each in self.annotations if each.type in types]
        return Lesson(annotations=annotations, reviewed_types=sorted(types), is_partial=True)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the spans of the annotations, sorted."""
        return tuple(sorted(each.span for each in self.annotations))


class JobDocument(SQLModel, table=True):
    """A document of a job, and what the job teaches of it: later runs learn that again, whatever is annotated since."""

    __table_args__ = (
        Index("ix_jobdocument_contradicted", "job_id", sqlite_where=_CONTRADICTED, postgresql_where=_CONTRADICTED),
    )

    job_id: str = _foreign_key("job.id", primary_key=True)
    document_id: str = _foreign_key("document.id", primary_key=True)
    lesson: Lesson | None = Field(
        default=None, sa_column=Column(ModelColumn(Lesson)), description="Null until a run read it"
    )
    read_by: str | None = Field(default=None, description="The flow run that read the lesson")
    contradiction: str | None = Field(
        default=None, sa_type=Text, description="Why the document was set aside while others of its job were learned"
    )
    withdrawn_by: str | None = Field(
        default=None,
        description="The job of the type `unlearning` since which the lesson counts no more; `retracted` if it counts "
        "no more, but no version without it was requested",
    )


class LabelStudioAnnotation(SQLModel, table=True):
    """An annotation in Label Studio, and what it taught: of one that is deleted there, we are told the id alone."""

    project: str = Field(primary_key=True, description="Id and time of creation of the project, as Label Studio joins")
    annotation_id: int = Field(primary_key=True, sa_type=BigInteger)
    task_id: int = Field(sa_type=BigInteger)
    document_id: str = _foreign_key("document.id")
    updated_at: datetime = Field(sa_type=UtcDateTime, description="In Label Studio")
    types: list[str] = Field(sa_type=JSON, description="What its reviewer looked for: the project's labels")
    job_id: str | None = Field(default=None, description="The job that taught it; null if it counts no more")
    is_deleted: bool = Field(default=False, description="Its id never returns: what still comes in of it is late")


class ApiKey(SQLModel, table=True):
    """An API key with its scopes; only a hash of its secret is stored."""

    id: str = Field(primary_key=True, description="Part of the key")
    name: str
    secret_hash: str = Field(description="SHA-256 of the 256 random bits in the key")
    scopes: list[str] = Field(sa_type=JSON)
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="Accurate to one minute")
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AuditAction(StrEnum):
    """The kind of a change."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"
    PROMOTED = "promoted"


class AuditEntry(SQLModel, table=True):
    """One change by one principal; entries are only added, but lose their old values if the document is deleted."""

    id: int | None = Field(default=None, primary_key=True, description="Entries are ordered by it")
    at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    principal: str = Field(description="The name of the API key")
    action: AuditAction = Field(sa_type=String)
    entity: str = Field(description="annotation, apikey, document, job, model or webhook")
    entity_id: str = Field(index=True)
    document_id: str | None = Field(default=None, index=True, description="An annotation's document")
    before: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    reason: str | None = Field(default=None, sa_type=Text, description="Why, in the words of who promoted a version")


class EventType(StrEnum):
    """What webhooks are told."""

    FEEDBACK_LIVE = "feedback.live"
    FEEDBACK_SET_ASIDE = "feedback.set_aside"
    MODEL_PROMOTED = "model.promoted"
    MODEL_ROLLED_BACK = "model.rolled_back"


class Webhook(SQLModel, table=True):
    """An address to which events are sent."""

    id: str = Field(default_factory=_new_id, primary_key=True)
    url: str = Field(sa_type=Text)
    event_types: list[EventType] = Field(sa_type=JSON)
    secret: str = Field(description="`whsec_` and the base64 of the key that signs each delivery")
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    disabled_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="When it answered 410")


class WebhookDelivery(SQLModel, table=True):
    """One event for one webhook, stored in the transaction of what it tells; the API sends it."""

    __table_args__ = (Index("ix_webhookdelivery_of_webhook", "webhook_id", "created_at"),)

    id: str = Field(default_factory=_new_id, primary_key=True)
    webhook_id: str = Field(foreign_key="webhook.id", ondelete="CASCADE")
    event_id: str = Field(description="The same in all deliveries of an event")
    event_type: EventType = Field(sa_type=String)
    body: str = Field(sa_type=Text, description="The JSON that is signed and sent")
    created_at: datetime = Field(default_factory=_now, sa_type=UtcDateTime)
    attempts: int = Field(default=0)
    last_status: int | None = Field(default=None, description="The HTTP status that the last attempt was answered with")
    last_error: str | None = Field(default=None, sa_type=Text, description="Why the last attempt had no answer")
    next_attempt_at: datetime | None = Field(
        default_factory=_now, sa_type=UtcDateTime, index=True, description="Null at the end"
    )
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
