"""Feedback on documents and requests for training runs; both become jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, status

from api.annotation_input import check_annotation_count, check_types, resolve_annotations
from api.authentication import GuardedRoute
from api.dependencies import ServicesDep, SessionDep, TrainerDep
from api.errors import document_errors
from api.job_responses import build_job_response
from api.schemas import FeedbackRequest, JobResponse, TrainingRunRequest
from feedback.job_state import find_job_state
from feedback.submission import (
    check_queue_has_space,
    create_training_run,
    request_unlearning,
    trigger_model_feedback,
)
from feedback.unlearning import Withdrawal
from registry.documents import get_document
from registry.keys import Scope
from registry.text_types import Text

router = APIRouter(tags=["feedback"], route_class=GuardedRoute)
IdempotencyKeyDep = Annotated[
    str | None, Header(max_length=200, description="The same key again returns the existing job and changes nothing")
]


@router.post(
    "/documents/{document_id}/feedback",
    status_code=status.HTTP_202_ACCEPTED,
    responses=document_errors(400, 404, 409, 410, 413),
)
def submit_feedback(
    document_id: Text,
    session: SessionDep,
    services: ServicesDep,
    caller: TrainerDep,
    feedback: FeedbackRequest | None = None,
    idempotency_key: IdempotencyKeyDep = None,
) -> JobResponse:
    """Submit feedback: the model learns from the annotations in the body, or from those stored if there are none.

    Annotations in the body replace the stored ones, so the key needs the scope `annotate`, too.

    Returns 202 before training; follow `GET /jobs/{job_id}/events`. Identical annotations return the existing job,
    unless it was set aside or failed. The job teaches what is sent, whatever is annotated before its run.
    """
    feedback = feedback or FeedbackRequest()
    if feedback.annotations is not None:
        caller.require(Scope.ANNOTATE)
    document = get_document(session, document_id)
    check_queue_has_space(session, services.settings.max_waiting_jobs)
    check_annotation_count(len(feedback.annotations or []), services)
    reviewer = feedback.reviewer or caller.name
    annotations = None
    if feedback.annotations is not None:
        annotations = resolve_annotations(document, feedback.annotations, services, reviewer)
        check_types(session, annotations, services)
    key = f"{caller.key_id} {idempotency_key}" if idempotency_key else None
    job = trigger_model_feedback(session, services.launcher, document, annotations, reviewer, feedback.note, key)
    response = build_job_response(session, services, job, find_job_state(job, {}).status)
    if not caller.may(Scope.READ):
        response.note = feedback.note  # that of an existing job may be another reviewer's
    return response


@router.post("/training-runs", status_code=status.HTTP_202_ACCEPTED, responses=document_errors(400, 404, 409, 410, 413))
def start_training_run(
    session: SessionDep, services: ServicesDep, caller: TrainerDep, request: TrainingRunRequest | None = None
) -> JobResponse:
    """Train on many documents, or on all annotated ones, in one run. Returns 202 before training.

    With `without`, make a version that never learned some of it: a consolidation in the background fits it from nothing
    on the rest, and it is promoted whatever its score. Earlier versions remain. The key needs the scope `admin`, too.
    """
    request = request or TrainingRunRequest()
    check_queue_has_space(session, services.settings.max_waiting_jobs)
    by = request.triggered_by or caller.name
    if request.without:
        caller.require(Scope.ADMIN)
        withdrawal = Withdrawal(request.without.document_ids, request.without.reviewers, request.without.since)
        job = request_unlearning(session, services.launcher, withdrawal, by)
        return build_job_response(session, services, job, find_job_state(job, {}).status)
    job = create_training_run(session, services.launcher, request.document_ids, by)
    return build_job_response(session, services, job, find_job_state(job, {}).status)
