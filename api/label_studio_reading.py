"""What "Start training" in Label Studio does: a thread reads the project over Label Studio's API."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

import httpx
from sqlmodel import Session, col, select

from api.authentication import Caller
from api.label_studio import forget_skipped, read_review
from api.services import Services
from feedback.label_studio import Review, forget_annotations, is_known, teach_reviews
from intake.label_config import LabelConfig, read_label_config
from intake.label_studio_requests import AnnotatedTask, Project
from intake.label_studio_server import LabelStudioServer
from registry.audit import set_principal
from registry.database import translate_database_errors
from registry.errors import ContractFeedbackError, DeletedError, InvalidInputError
from registry.jobs import MOST_DOCUMENTS
from registry.tables import LabelStudioAnnotation

_reading = Lock()
_logger = logging.getLogger(__name__)


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
    with _open_session(services, caller) as session:
        known = _list_known(session, project.key)
    new = list[Review]()
    for task in server.list_tasks(project.id):
        with _open_session(services, caller) as session:
            new += _compare(session, services, caller, project, config, task, known.get(task.id, ()))
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


def _list_known(session: Session, project: str) -> Mapping[int, Collection[int]]:
    """Return the annotations of a project that count, by their tasks."""
    query = select(LabelStudioAnnotation.task_id, LabelStudioAnnotation.annotation_id).where(
        LabelStudioAnnotation.project == project, col(LabelStudioAnnotation.job_id).is_not(None)
    )
    known = defaultdict[int, set[int]](set)
    for task_id, annotation_id in session.exec(query):
        known[task_id].add(annotation_id)
    return known


def _compare(
    session: Session,
    services: Services,
    caller: Caller,
    project: Project,
    config: LabelConfig,
    task: AnnotatedTask,
    known: Collection[int],
) -> list[Review]:
    """Forget the annotations of a task that were skipped or deleted, and return what is new of the latest.

    `known` are those before the task was read: what came in since may be missing in it.
    """
    for annotation in task.annotations:
        if annotation.was_cancelled:
            forget_skipped(session, services, caller, project, annotation)
    gone = sorted(set(known) - {each.id for each in task.annotations})
    forget_annotations(session, services.launcher, project.key, gone, caller.name)
    latest = task.latest
    if latest is None or is_known(session, project.key, latest.id, latest.updated_at):
        return []
    try:
        return [read_review(session, services, caller, project, config, task, latest)]
    except (InvalidInputError, DeletedError) as error:
        _logger.warning("Annotation %d of Label Studio is left out: %s", latest.id, error)
        return []


@contextmanager
def _open_session(services: Services, caller: Caller) -> Iterator[Session]:
    with translate_database_errors(), Session(services.engine, expire_on_commit=False) as session:
        set_principal(session, caller.name)
        yield session
