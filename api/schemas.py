"""What clients send and get."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from intake.location import Location
from registry.models import Lineage, ModelVersion
from registry.outcome import Outcome
from registry.tables import MAX_NAME, AnnotationStatus, AuditAction, DocumentBase, JobType

Item = TypeVar("Item")

_ERRORS = {
    400: "The body cannot be read: send JSON, or a form with a file, in UTF-8",
    401: "No valid API key",
    403: "The key lacks the scope",
    404: "What the path or body names does not exist",
    409: "It contradicts what is stored",
    412: "It was changed since it was read: read it again",
    413: "The file is too large",
    415: "The file is neither a PDF nor plain text",
    422: "It can be read, but makes no sense: the detail says what to do",
    429: "Too many requests, or too many jobs wait: try again later",
    503: "Prefect, MLflow, the database or the document store does not do its work: try again later",
}
ERROR_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}}


def _check_storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("Leave out the NUL character, which PostgreSQL does not store")
    return text


Text = Annotated[str, AfterValidator(_check_storable)]
EntityType = Annotated[Text, Field(min_length=1, max_length=100)]
Person = Annotated[Text, Field(max_length=MAX_NAME)]
Note = Annotated[Text, Field(max_length=10_000)]


class Page(BaseModel, Generic[Item]):
    """A page of a list: `total` counts all there are."""

    items: list[Item]
    total: int
    offset: int
    limit: int


class ErrorResponse(BaseModel):
    """What is wrong with the request, and what to do."""

    detail: str


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of these statuses, for a route's `responses`."""
    return {
        status: {
            "model": ErrorResponse,
            "description": _ERRORS[status],
            "headers": {
                name: {"required": True, "schema": {"type": "string", "examples": [value]}}
                for name, value in ERROR_HEADERS.get(status, {}).items()
            },
        }
        for status in statuses
    }


class DocumentPublic(DocumentBase):
    """A document."""


class EntityPublic(BaseModel):
    """An extracted entity; `start` and `end` are offsets in characters into the document's text, `end` exclusive."""

    type: str
    value: str
    start: int
    end: int
    confidence: float = Field(description="Probability, in the model's view, that exactly this stands there")
    location: list[Location] = Field(description="One for each page it stands on; empty for plain text")


class EntitiesResponse(BaseModel):
    """What one version of the model finds in a document."""

    document_id: str
    model_version: str | None = Field(description="The version that says so; null before the first feedback")
    entities: list[EntityPublic]


class AnnotationCreate(BaseModel):
    """An entity a reviewer marks, by its offsets or by its location on the page; the value must stand there."""

    model_config = ConfigDict(extra="forbid")

    type: EntityType = Field(examples=["governing_law"])
    value: str = Field(min_length=1, examples=["the laws of Portugal"])
    start: int | None = Field(None, ge=0, description="Offset in characters into the document's text")
    end: int | None = Field(None, ge=1, description="Offset behind the last character")
    location: list[Location] | None = Field(None, description="Instead of start and end")
    reviewer: Person | None = None
    notes: Note | None = None
    status: AnnotationStatus = Field(AnnotationStatus.APPROVED, description="Only approved annotations teach")

    @model_validator(mode="after")
    def _has_place(self) -> "AnnotationCreate":
        if not self.location and (self.start is None or self.end is None):
            raise ValueError("Give start and end, or a location")
        return self


class AnnotationPublic(BaseModel):
    """A stored annotation."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    document_id: str
    type: str
    value: str
    start: int
    end: int
    reviewer: str | None
    notes: str | None
    status: AnnotationStatus
    created_at: datetime
    updated_at: datetime
    revision: int = Field(description="For `If-Match`: a change is refused if this one is no longer the newest")


class AuditEntryPublic(BaseModel):
    """One change by one principal."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    principal: str = Field(description="The name of the API key")
    action: AuditAction
    entity: str
    entity_id: str
    document_id: str | None
    before: dict[str, Any] | None = Field(description="What was overwritten or deleted")


class FeedbackRequest(BaseModel):
    """A reviewer's feedback on one document."""

    model_config = ConfigDict(extra="forbid")

    annotations: list[AnnotationCreate] | None = Field(
        None, description="All that is to be marked in the document, replacing its annotations; null keeps those"
    )
    reviewer: Person | None = Field(None, description="For annotations that name no reviewer of their own")
    note: Note | None = None


class TrainingRunRequest(BaseModel):
    """A request to train on many documents in one run."""

    model_config = ConfigDict(extra="forbid")

    document_ids: list[Text] | None = Field(None, description="Null: all documents with approved annotations")
    triggered_by: Person | None = Field(None, description="Default: the name of the API key")


class JobStatus(StrEnum):
    """The state of a job, as Prefect knows it."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobLinks(BaseModel):
    """Where more is to be seen."""

    job: str
    prefect_run: str | None = Field(description="The run in the Prefect UI, once it is launched")
    mlflow_run: str | None = Field(description="The run in the MLflow UI, once there is one")


class JobResponse(BaseModel):
    """A job: work asked for by a feedback or a training run."""

    job_id: str
    job_type: JobType
    status: JobStatus
    links: JobLinks
    document_ids: list[str]
    triggered_by: str
    note: str | None
    created_at: datetime


class JobDetail(JobResponse):
    """A job with what Prefect knows of it and, at its end, its outcome."""

    progress: float = Field(description="Percent done")
    message: str | None = Field(description="What Prefect says about the state: for a failure, its reason")
    outcome: Outcome | None = Field(description="The version made, its scores beside the champion's, the decision")


class ModelDetail(ModelVersion):
    """A version with what it was taught."""

    lineage: Lineage


class Health(BaseModel):
    """The service answers."""

    status: str = "ok"


class ComponentStatus(BaseModel):
    """One part of the installation."""

    ok: bool
    detail: str


class SystemStatus(BaseModel):
    """All parts the service needs."""

    ok: bool
    database: ComponentStatus
    prefect: ComponentStatus
    mlflow: ComponentStatus
    worker: ComponentStatus
    served_version: str | None
