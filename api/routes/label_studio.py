"""The ML backend for Label Studio."""

import logging
import time
from typing import Annotated

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict, Field

from api.authentication import BasicGuardedRoute
from api.dependencies import ReaderDep, ReviewerDep, ServicesDep, SessionDep
from api.errors import document_errors
from api.label_studio import predict, teach
from api.label_studio_reading import start_reading
from feedback.label_studio import forget_annotations
from feedback.submission import check_queue_has_space
from intake.label_config import MAX_CONFIG, LabelConfig, read_label_config
from intake.label_studio_requests import UNTRAINED, Prediction, TaskRequest, WebhookRequest
from registry.errors import InvalidInputError

router = APIRouter(prefix="/label-studio", tags=["label studio"], route_class=BasicGuardedRoute)
ConfigXml = Annotated[str, Field(max_length=MAX_CONFIG, description="The labelling configuration")]

_PREDICTING_SECONDS = 20.0  # Label Studio waits 100

_logger = logging.getLogger(__name__)


class SetupRequest(BaseModel):
    """A project that is being connected; the token of its creator, which comes with it, is not read."""

    label_config: ConfigXml = Field(alias="schema")


class SetupResponse(BaseModel):
    """The version that predicts now."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str


class PredictRequest(BaseModel):
    """Tasks to predict."""

    tasks: Annotated[list[TaskRequest], Field(max_length=1_000, fail_fast=True)]
    label_config: ConfigXml


class PredictResponse(BaseModel):
    """One result for each task, in their order; empty for a task without prediction, for which one may ask again."""

    results: list[Prediction | list[Prediction]]


class VersionsResponse(BaseModel):
    """The versions that predict."""

    versions: list[str]


class BackendHealth(BaseModel):
    """The backend answers."""

    status: str = "UP"
    model_class: str = "contract-feedback"


class WebhookResponse(BaseModel):
    """The jobs that teach what came."""

    jobs: list[str]


@router.get("")
@router.get("/health")
def check_backend(_: ReaderDep) -> BackendHealth:
    """Check the address and the key. Label Studio sends the key as the password of Basic authentication."""
    return BackendHealth()


@router.post("/setup", responses=document_errors(400, 413))
def set_up(request: SetupRequest, services: ServicesDep, _: ReaderDep) -> SetupResponse:
    """Name the version that predicts now, and refuse a configuration without labels on the text of a task."""
    _read_config(request.label_config)
    return SetupResponse(model_version=services.served.find_version() or UNTRAINED)


@router.get("/versions")
def read_versions(services: ServicesDep, _: ReaderDep) -> VersionsResponse:
    """Name the version that predicts now."""
    return VersionsResponse(versions=[services.served.find_version() or UNTRAINED])


@router.post("/predict", responses=document_errors(400, 413))
def predict_tasks(
    request: PredictRequest, session: SessionDep, services: ServicesDep, caller: ReaderDep
) -> PredictResponse:
    """Predict the entities of tasks, those of the configuration's labels, with the current model.

    A task whose text is no document becomes one; then the key needs the scope `annotate`, too. What is not read after
    20 seconds has no prediction yet: ask again.
    """
    config = _read_config(request.label_config)
    model = services.served.get()
    if model is None:
        return PredictResponse(results=[[] for _ in request.tasks])
    until = time.monotonic() + _PREDICTING_SECONDS
    results = [predict(session, services, caller, config, task, model, until) for task in request.tasks]
    return PredictResponse(results=results)


@router.post("/webhook", status_code=status.HTTP_202_ACCEPTED, responses=document_errors(400, 404, 409, 410, 413))
def receive_webhook(
    request: WebhookRequest, session: SessionDep, services: ServicesDep, caller: ReviewerDep
) -> WebhookResponse:
    """Learn from an annotation, forget one that was deleted, or have a project read; other events change nothing.

    Answers before training. An annotation that was taught before, in the same state, returns its job. One project is
    read at a time.
    """
    jobs = []
    match request.action:
        case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED" | "ANNOTATIONS_CREATED":
            check_queue_has_space(session, services.settings.max_waiting_jobs)
            jobs = teach(session, services, caller, request.get_project(), request.list_annotated())
        case "ANNOTATIONS_DELETED":
            deleted = [each.id for each in request.annotations]
            jobs = forget_annotations(session, services.launcher, request.get_project().key, deleted, caller.name)
        case "START_TRAINING":
            start_reading(services, caller, request.get_project())
    return WebhookResponse(jobs=[job.id for job in jobs])


def _read_config(xml: str) -> LabelConfig:
    """Read a configuration; Label Studio shows nobody why it is refused, so the log says it, too."""
    try:
        return read_label_config(xml)
    except InvalidInputError as error:
        _logger.warning("A project of Label Studio is refused: %s", error)
        raise
