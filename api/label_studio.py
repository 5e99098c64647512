"""From what Label Studio sends to documents, predictions and reviews."""

import logging
import time
from collections.abc import Sequence

from sqlmodel import Session

from api.annotation_input import check_annotation_count, check_types
from api.authentication import Caller
from api.documents import add_document, extract
from api.services import Services
from feedback.label_studio import Review, forget_annotations, list_others, teach_reviews
from intake.label_config import LabelConfig, read_label_config
from intake.label_studio import count_labels, read_labels
from intake.label_studio_requests import (
    Prediction,
    Project,
    StoredAnnotation,
    TaskRequest,
    build_prediction,
)
from intake.reading import encode_text
from registry.documents import build_missing_error, find_document_by_text
from registry.errors import ContractFeedbackError, DeletedError, ForbiddenError, InvalidInputError
from registry.keys import Scope
from registry.served_model import LoadedModel
from registry.tables import DeletedDocument, Document, Job

_logger = logging.getLogger(__name__)


def predict(
    session: Session,
    services: Services,
    caller: Caller,
    config: LabelConfig,
    task: TaskRequest,
    model: LoadedModel,
    until: float,
) -> Prediction | list[Prediction]:
    """Return what the model finds in a task; an empty list, after which Label Studio asks again, if it cannot be read.

    After `until`, in monotonic seconds, a task is not read, but encoded in the background.
    Raises ForbiddenError if the task is a new document and the caller may not add it.
    """
    try:
        document = find_document(session, services, config, task, caller)
        if time.monotonic() > until:
            services.encoding.add(document.text)
            return []
        return build_prediction(config, extract(session, services, document, model), model.version)
    except ForbiddenError:
        raise
    except ContractFeedbackError as error:
        _logger.warning("Task %d of Label Studio has no prediction: %s", task.id, error)
        return []


def find_document(
    session: Session, services: Services, config: LabelConfig, task: TaskRequest, caller: Caller
) -> Document:
    """Return the document that a task names, if it has the task's text, or the one with this text, added if unknown.

    Raises InvalidInputError if the task has no text, DeletedError if what it names is deleted, ForbiddenError if the
    caller may not add it.
    """
    text = config.read_text(task.data)
    named = task.data.get("document_id")
    named = named if isinstance(named, str) and named.isprintable() else ""
    if session.get(DeletedDocument, named):
        raise build_missing_error(session, named)
    if found := find_document_by_text(session, text, named):
        return found
    caller.require(Scope.ANNOTATE)
    return add_document(session, services, encode_text(text), f"label-studio-{task.id}.txt")


def teach(
    session: Session,
    services: Services,
    caller: Caller,
    project: Project,
    annotated: Sequence[tuple[StoredAnnotation, TaskRequest]],
) -> list[Job]:
    """Commit what annotations of a project say as one job, and return the jobs that teach it.

    Raises InvalidInputError or DeletedError if none of them can be read; if only some cannot, they are logged and left
    out.
    """
    config = read_label_config(project.label_config)
    reviews, problems = [], list[ContractFeedbackError]()
    for annotation, task in annotated:
        if annotation.was_cancelled:
            forget_skipped(session, services, caller, project, annotation)
            continue
        try:
            reviews.append(read_review(session, services, caller, project, config, task, annotation))
        except (InvalidInputError, DeletedError) as error:
            _logger.warning("Annotation %d of Label Studio is left out: %s", annotation.id, error)
            problems.append(error)
    if problems and not reviews:
        raise problems[0]
    return teach_together(session, services, caller, reviews) if reviews else []


def teach_together(session: Session, services: Services, caller: Caller, reviews: Sequence[Review]) -> list[Job]:
    """Commit reviews as one job, and return the jobs that teach them.

    Raises InvalidInputError if they have too many types together, though each alone has not.
    """
    check_types(session, [each for review in reviews for each in review.annotations], services)
    return teach_reviews(session, services.launcher, reviews, caller.name)


def forget_skipped(
    session: Session, services: Services, caller: Caller, project: Project, annotation: StoredAnnotation
) -> None:
    """Commit that an annotator has skipped a task: what the annotation taught before counts no more."""
    skipped = [annotation.id]
    forget_annotations(session, services.launcher, project.key, skipped, caller.name, annotation.updated_at)


def read_review(
    session: Session,
    services: Services,
    caller: Caller,
    project: Project,
    config: LabelConfig,
    task: TaskRequest,
    annotation: StoredAnnotation,
) -> Review:
    """Return what an annotation says of its task's document.

    Raises InvalidInputError if it does not fit, DeletedError if the task names a deleted document.
    """
    on_text = [each for each in annotation.result if each.to_name == config.text_name]
    annotation = annotation.model_copy(update={"result": on_text})
    check_annotation_count(count_labels(annotation), services)
    document = find_document(session, services, config, task, caller)
    annotations = read_labels(annotation, document.text, f"Label Studio user {annotation.completed_by or 'unknown'}")
    check_types(session, annotations, services)
    types = frozenset(config.labels) | {each.type for each in annotations}
    others = list_others(session, document.id, types)
    check_annotation_count(len(annotations) + len(others), services)
    return Review(
        project=project.key,
        annotation_id=annotation.id,
        task_id=task.id,
        updated_at=annotation.updated_at,
        document_id=document.id,
        types=types,
        annotations=annotations,
    )
