"""The bodies of requests and responses."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, HttpUrl, model_validator

from feedback.job_state import JobStatus
from intake.location import Location, Word
from registry.jobs import MOST_DOCUMENTS, Review
from registry.keys import Scope
from registry.lineage import Origin
from registry.model_version import ModelVersion
from registry.outcome import Decision, Outcome
from registry.settings import MOST_ANNOTATIONS
from registry.tables import AnnotationStatus, AuditAction, DocumentBase, EventType, JobType
from registry.text_types import EntityType, Note, PersonName, Text, Value

_MAX_FIELDS = 50

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list; `total` is the length of the whole list."""

    items: list[Item]
    total: int
    offset: int
    limit: int


class KeyPublic(BaseModel):
    """An API key."""

    name: str = Field(description="Its changes are recorded under this name")
    scopes: list[Scope] = Field(description="What it may do; `admin` brings all others")


class DocumentPublic(DocumentBase):
    """A document."""

    review: Review = Field(
        description="`new`: no feedback yet; `waiting`: a job of it waits or is being learned; `set_aside`: no model "
        "learns its last feedback; `changed`: its approved annotations are not those of its last feedback; `reviewed`"
    )
    uncertain_values: float | None = Field(
        description="How many values a version, not always the served one, is expected to read wrong; null if unknown"
    )


class DocumentPage(BaseModel):
    """A page of a PDF."""

    width: float = Field(description="In points (1/72 inch), as the page is displayed")
    height: float
    start: int = Field(description="Offset of the first character of the page in the document's text")
    end: int = Field(description="Offset after the last character, a line end")


class DocumentPages(BaseModel):
    """The pages of a PDF, in order; plain text has none."""

    pages: list[DocumentPage]


class PageWords(BaseModel):
    """The words on a page, in the order of the text."""

    words: list[Word]


class EntityPublic(BaseModel):
    """An extracted entity; `start` and `end` are character offsets into the document's text, `end` exclusive."""

    type: str
    value: str
    start: int
    end: int
    confidence: float = Field(description="The model's probability that exactly this span is an entity of this type")
    location: list[Location] = Field(description="One for each page that the entity covers; empty for plain text")


class EntitiesResponse(BaseModel):
    """The entities that one version of the model finds in a document."""

    document_id: str
    model_version: str | None = Field(description="The version that found them; null before the first feedback")
    warning: str | None = Field(None, description="Why this version may not be the champion; null if it is")
    entities: list[EntityPublic]


class RequestBody(BaseModel):
    """A body without unknown fields; each of them is reported, so an object with very many fields is refused first."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_field_count(cls, body: Any) -> Any:
        if isinstance(body, dict) and len(body) > _MAX_FIELDS:
            raise ValueError(f"This object has {len(body)} fields, and {len(cls.model_fields)} are known")
        return body


class AnnotationCreate(RequestBody):
    """An entity to mark, by offsets or by its location on the page; `value` must be the text there."""

    type: EntityType = Field(examples=["governing_law"])
    value: Annotated[Value, Field(min_length=1)] = Field(examples=["the laws of Portugal"])
    start: int | None = Field(None, ge=0, description="Character offset into the document's text")
    end: int | None = Field(None, ge=1, description="Offset after the last character")
    location: Annotated[list[Location], Field(max_length=100, fail_fast=True)] | None = Field(
        None, description="Instead of start and end"
    )
    reviewer: PersonName | None = None
    notes: Note | None = None
    status: AnnotationStatus = Field(
        AnnotationStatus.APPROVED, description="Models learn from approved annotations only"
    )

    @model_validator(mode="after")
    def _check_position(self) -> "AnnotationCreate":
        if not self.location and (self.start is None or self.end is None):
            raise ValueError("Give start and end, or a location")
        return self


class AnnotationPublic(BaseModel):
    """A stored annotation."""

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
    location: list[Location] = Field(description="One for each page that it covers; empty for plain text")
    revision: int = Field(
        description="Send it as `If-Match` so that a change is refused if the annotation has a newer revision"
    )


class AuditEntryPublic(BaseModel):
    """One change by one principal."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    principal: str = Field(description="The name of the API key")
    action: AuditAction
    entity: str
    entity_id: str
    document_id: str | None
    before: dict[str, Any] | None = Field(description="The values that were overwritten or deleted")
    reason: str | None = Field(description="Why, in the words of who promoted a version")


class FeedbackRequest(RequestBody):
    """A reviewer's feedback on one document."""

    annotations: Annotated[list[AnnotationCreate], Field(max_length=MOST_ANNOTATIONS, fail_fast=True)] | None = Field(
        None, description="All annotations of the document, replacing the stored ones; null keeps those"
    )
    reviewer: PersonName | None = Field(None, description="Reviewer of the annotations that name none")
    note: Note | None = None


def _to_utc(since: datetime) -> datetime:
    try:
        return since.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("Give a time between the years 1 and 9999 in UTC") from error


class WithoutRequest(RequestBody):
    """What a new version is never to have learned: the lessons that meet all criteria given.

    A lesson is what one job teaches of one document. Without it, the document counts as an earlier job taught it, if
    one did. What a job still waits to teach is left out, too.
    """

    document_ids: Annotated[list[Text], Field(min_length=1, max_length=MOST_DOCUMENTS, fail_fast=True)] | None = Field(
        None, description="Only lessons on these documents"
    )
    reviewers: Annotated[list[PersonName], Field(min_length=1, max_length=100, fail_fast=True)] | None = Field(
        None, description="Only lessons of jobs triggered by one of these, or with an annotation of one of these"
    )
    since: Annotated[AwareDatetime, AfterValidator(_to_utc)] | None = Field(
        None, description="Only lessons of jobs created at this time or later"
    )

    @model_validator(mode="after")
    def _check_any(self) -> "WithoutRequest":
        if not (self.document_ids or self.reviewers or self.since):
            raise ValueError("Give document_ids, reviewers or since")
        return self


class TrainingRunRequest(RequestBody):
    """A request to train on many documents in one run, or to make a version without some of what was learned."""

    document_ids: Annotated[list[Text], Field(max_length=MOST_DOCUMENTS, fail_fast=True)] | None = Field(
        None, description="Reviewed documents. Default: all documents with approved annotations"
    )
    without: WithoutRequest | None = Field(None, description="What to unlearn, instead of `document_ids`")
    triggered_by: PersonName | None = Field(None, description="Default: the name of the API key")

    @model_validator(mode="after")
    def _check_one(self) -> "TrainingRunRequest":
        if self.document_ids is not None and self.without:
            raise ValueError("Give document_ids to learn, or `without` to unlearn, not both")
        return self


class JobLinks(BaseModel):
    """Addresses of the job and its runs."""

    job: str
    prefect_run: str | None = Field(description="The flow run in the Prefect UI; null until it is launched")
    mlflow_run: str | None = Field(description="The run in the MLflow UI; null until the model is trained")


class JobResponse(BaseModel):
    """A request to learn, from feedback or for a training run, to hand over a consolidation, or to unlearn."""

    job_id: str
    job_type: JobType
    status: JobStatus
    links: JobLinks
    document_ids: list[str]
    triggered_by: str
    insisted_by: str | None = Field(description="Who has it taught though it was set aside before")
    note: str | None
    created_at: datetime
    live_version: str | None = Field(
        description="The version that learned it: `GET /documents/{id}/entities?min_version=…` answers by that or a "
        "newer one; null until then, and if what it teaches is set aside"
    )
    lost_version: int | None = Field(
        description="A version that was made for it before, and that MLflow has lost: it was restored from a back-up"
    )


class JobDetail(JobResponse):
    """A job with its progress and, at its end, its outcome."""

    progress: float = Field(description="In percent")
    message: str | None = Field(
        description="Explains the status; at the end, the reason of the outcome and what the corrections did"
    )
    set_aside: dict[str, str] = Field(
        description="Documents that were set aside while the others were learned, each with what it contradicts"
    )
    outcome: Outcome | None = Field(
        description="The decision, the new version and its scores beside the champion's; null until the end"
    )


class EndReason(StrEnum):
    """Why a stream of events ends."""

    ANSWERED = "answered"
    DELETED = "deleted"
    REVOKED = "revoked"


class EndOfEvents(BaseModel):
    """The data of the last event of a stream."""

    reason: EndReason = Field(description="`revoked` is the key, the others are the job")


class AnnotationOfVersion(BaseModel):
    """An annotation as a version learned it; id, revision and reviewer are null in versions of earlier releases."""

    model_config = ConfigDict(from_attributes=True)

    id: str | None = None
    type: str
    start: int
    end: int
    revision: int | None = None
    reviewer: str | None = None


class LineageDetail(Origin):
    """What a version was made from: annotations by the ids of their documents, in the order of the training.

    Documents that were deleted since are left out. Of a refused batch, whose jobs were tried again in parts, these are
    the annotations as the last try read them.
    """

    training: dict[str, list[AnnotationOfVersion]] = Field(
        description="One page of the documents that it learned; of a consolidation, of all from which it chose"
    )
    training_total: int = Field(description="The number of these documents")
    replay: dict[str, list[AnnotationOfVersion]] = Field(description="Earlier documents that it learned again")


class ModelPublic(ModelVersion):
    """A version with what made it."""

    prefect_run: str | None = Field(description="The flow run in the Prefect UI; null in versions of earlier releases")
    job_ids: list[str] = Field(description="The jobs that this run answered; empty in versions of earlier releases")


class TypeCount(BaseModel):
    """How often a type of entity is used in approved annotations."""

    type: str
    annotations: int
    documents: int = Field(description="In how many documents")


class ModelDetail(ModelPublic):
    """A version with what it was made from."""

    lineage: LineageDetail


class VersionOfAnnotation(BaseModel):
    """A version that learned an annotation."""

    version: str
    revision: int = Field(description="The annotation's, as it was learned")
    reviewer: str | None
    job_id: str = Field(description="The job that taught it")
    decision: Decision
    learned_at: datetime | None = Field(description="When the version was compared; null in earlier releases")
    is_live: bool = Field(
        description="Whether the version that is served now is this one or comes from it, and still counts on the "
        "annotation: the document's last lesson has it, too"
    )


class VersionsOfAnnotation(BaseModel):
    """The versions whose own jobs taught an annotation, newest first."""

    live_since: datetime | None = Field(
        description="When the first of the live versions learned it; null if none is live, or if that is unknown"
    )
    versions: list[VersionOfAnnotation]


class PromotionRequest(RequestBody):
    """A person's promotion of a version."""

    reason: Note | None = Field(None, description="For the audit log and the jobs that are set aside")


class Promotion(ModelPublic):
    """The promoted version, and what it has not learned."""

    set_aside: list[str] = Field(
        description="Jobs that later versions had learned, oldest first; POST /jobs/{id}/teach learns one again"
    )


def _check_no_credentials(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("Leave out the user and password: each delivery is signed")
    return url


class WebhookCreate(RequestBody):
    """Where to send which events."""

    url: Annotated[HttpUrl, AfterValidator(_check_no_credentials)] = Field(examples=["https://example.com/events"])
    event_types: Annotated[list[EventType], Field(min_length=1, max_length=len(EventType), fail_fast=True)]


class WebhookPublic(BaseModel):
    """A webhook."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    url: str
    event_types: list[EventType]
    created_at: datetime
    disabled_at: datetime | None = Field(description="When it answered 410, and was disabled; null otherwise")


class WebhookCreated(WebhookPublic):
    """A new webhook."""

    secret: str = Field(description="Verifies signatures, as Standard Webhooks says; it is not shown again")


class WebhookDeliveryPublic(BaseModel):
    """The delivery of one event to one webhook."""

    model_config = ConfigDict(from_attributes=True)

    event_id: str = Field(description="The header `webhook-id`")
    event_type: EventType
    created_at: datetime
    attempts: int
    last_status: int | None = Field(description="The HTTP status that the last attempt was answered with")
    last_error: str | None = Field(description="Why the last attempt had no answer")
    next_attempt_at: datetime | None = Field(description="Null once the event is delivered, or given up")
    delivered_at: datetime | None


class ModelPage(BaseModel):
    """One page of the versions, newest first."""

    items: list[ModelPublic]
    next_before: str | None = Field(description="The `before` of the next page; null on the last")


class Health(BaseModel):
    """The service answers."""

    status: str = "ok"


class ComponentStatus(BaseModel):
    """One part of the installation."""

    ok: bool
    detail: str


class SystemStatus(BaseModel):
    """All parts of the installation."""

    ok: bool
    database: ComponentStatus
    document_store: ComponentStatus
    prefect: ComponentStatus
    mlflow: ComponentStatus
    worker: ComponentStatus
    model: ComponentStatus = Field(description="Whether the champion serves; if not, why, and which version does")
    served_version: str | None
