"""From what Label Studio sends to documents, predictions and reviews."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import httpx
from sqlmodel import Session

from api.annotation_input import check_annotation_count, check_types
from api.authentication import Caller
from api.documents import add_document, extract
from api.services import Services
from feedback.label_studio import Review, forget_annotations, is_known, list_known_annotations, teach_reviews
from intake.label_config import LabelConfig, read_label_config
from intake.label_studio import count_labels, read_labels
from intake.label_studio_requests import (
    AnnotatedTask,
    Prediction,
    Project,
    StoredAnnotation,
    TaskRequest,
    build_prediction,
)
from intake.label_studio_server import LabelStudioServer
from registry.audit import set_principal
from registry.database import translate_database_errors
from registry.documents import find_document_by_content
from registry.errors import ContractFeedbackError, ForbiddenError, InvalidInputError
from registry.jobs import MOST_DOCUMENTS
from registry.keys import Scope
from registry.served_model import LoadedModel
from registry.tables import Document, Job

_reading = Lock()
_logger = logging.getLogger(__name__)


def predict(
    session: Session, services: Services, caller: Caller, config: LabelConfig, task: TaskRequest, model: LoadedModel
) -> Prediction | list[Prediction]:
    """Return what the model finds in a task; an empty list, after which Label Studio asks again, if it cannot be read.

    Raises ForbiddenError if the task is a new document and the caller may not add it.
    """
    try:
        document = find_document(session, services, config, task, caller)
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

    Raises InvalidInputError if the task has no text, ForbiddenError if the caller may not add it.
    """
    text = config.read_text(task.data)
    named = task.data.get("document_id")
    document = session.get(Document, named) if isinstance(named, str) and named.isprintable() else None
    if document is None or document.text != text:
        document = _find_or_add(session, services, caller, text, f"label-studio-{task.id}.txt")
    if document.text != text:
        raise InvalidInputError("The text begins like a PDF, and is taken for one: leave out its first line")
    return document


def teach(
    session: Session,
    services: Services,
    caller: Caller,
    project: Project,
    annotated: Sequence[tuple[StoredAnnotation, TaskRequest]],
) -> list[Job]:
    """Commit what annotations of a project say as one job, and return the jobs that teach it.

    Raises InvalidInputError if none of them can be read; if only some cannot, they are logged and left out.
    """
    config = read_label_config(project.label_config)
    reviews, problems = [], list[ContractFeedbackError]()
    for annotation, task in annotated:
        if annotation.was_cancelled:
            forget_skipped(session, services, caller, project, annotation)
            continue
        try:
            reviews.append(read_review(session, services, caller, project, config, task, annotation))
        except InvalidInputError as error:
            _logger.warning("Annotation %d of Label Studio is left out: %s", annotation.id, error)
            problems.append(error)
    if problems and not reviews:
        raise problems[0]
    return teach_reviews(session, services.launcher, reviews, caller.name) if reviews else []


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
    """Return what an annotation says of its task's document; raises InvalidInputError if it does not fit."""
    on_text = [each for each in annotation.result if each.to_name == config.text_name]
    annotation = annotation.model_copy(update={"result": on_text})
    check_annotation_count(count_labels(annotation), services)
    document = find_document(session, services, config, task, caller)
    annotations = read_labels(annotation, document.text, f"Label Studio user {annotation.completed_by or 'unknown'}")
    check_types(session, annotations, services)
    return Review(
        project=project.key,
        annotation_id=annotation.id,
        task_id=task.id,
        updated_at=annotation.updated_at,
        document_id=document.id,
        types=frozenset(config.labels) | {each.type for each in annotations},
        annotations=annotations,
    )


def reconcile(services: Services, caller: Caller, sent: Project) -> None:
    """Read a project's annotations from the configured Label Studio, and teach what is new as one job.

    Does nothing while another project is being read.
    """
    if not _reading.acquire(blocking=False):
        _logger.warning("Project %d of Label Studio is not read: another is being read", sent.id)
        return
    try:
        _reconcile(services, caller, sent)
    except (httpx.HTTPError, ContractFeedbackError) as error:
        _logger.warning("Project %d of Label Studio cannot be read: %s", sent.id, error)
    finally:
        _reading.release()


def _reconcile(services: Services, caller: Caller, sent: Project) -> None:
    server = get_server(services)
    project = server.read_project(sent.id)
    if project.key != sent.key:
        raise InvalidInputError("CONTRACT_FEEDBACK_LABEL_STUDIO_URL is not the Label Studio that asked for this")
    config = read_label_config(project.label_config)
    new = list[Review]()
    for task in server.list_tasks(project.id):
        with _open_session(services, caller) as session:
            new += _compare(session, services, caller, project, config, task)
    for first in range(0, len(new), MOST_DOCUMENTS):
        with _open_session(services, caller) as session:
            teach_reviews(session, services.launcher, new[first : first + MOST_DOCUMENTS], caller.name)
    _logger.info("Project %d of Label Studio is read: %d annotations were new", project.id, len(new))


def get_server(services: Services) -> LabelStudioServer:
    """Return the configured Label Studio; raises InvalidInputError if there is none."""
    url, token = services.settings.label_studio_url, services.settings.label_studio_token
    if not url or not token:
        raise InvalidInputError("Set CONTRACT_FEEDBACK_LABEL_STUDIO_URL and CONTRACT_FEEDBACK_LABEL_STUDIO_TOKEN")
    return LabelStudioServer(url, token)


def _compare(
    session: Session, services: Services, caller: Caller, project: Project, config: LabelConfig, task: AnnotatedTask
) -> list[Review]:
    """Forget the annotations of a task that were skipped or deleted, and return what is new of the latest."""
    for annotation in task.annotations:
        if annotation.was_cancelled:
            forget_skipped(session, services, caller, project, annotation)
    known = list_known_annotations(session, project.key, task.id)
    gone = sorted(set(known) - {each.id for each in task.annotations})
    forget_annotations(session, services.launcher, project.key, gone, caller.name)
    latest = task.latest
    if latest is None or is_known(session, project.key, latest.id, latest.updated_at):
        return []
    try:
        return [read_review(session, services, caller, project, config, task, latest)]
    except InvalidInputError as error:
        _logger.warning("Annotation %d of Label Studio is left out: %s", latest.id, error)
        return []


def _find_or_add(session: Session, services: Services, caller: Caller, text: str, filename: str) -> Document:
    content = text.encode("utf-8-sig" if text.startswith("\ufeff") else "utf-8")  # reading takes one mark away
    if found := find_document_by_content(session, hashlib.sha256(content).hexdigest()):
        return found
    caller.require(Scope.ANNOTATE)
    return add_document(session, services, content, filename)


@contextmanager
def _open_session(services: Services, caller: Caller) -> Iterator[Session]:
    with translate_database_errors(), Session(services.engine, expire_on_commit=False) as session:
        set_principal(session, caller.name)
        yield session
