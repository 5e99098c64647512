"""What "Start training" in Label Studio does: a thread reads the project over Label Studio's API."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Lock, Thread

import httpx
from sqlmodel import Session

from api.authentication import Caller
from api.label_studio import forget_skipped, read_review, teach_together
from api.services import Services
from feedback.label_studio import Review, forget_annotations, is_known, list_known_annotations
from intake.label_config import LabelConfig, read_label_config
from intake.label_studio_requests import AnnotatedTask, Project
from intake.label_studio_server import LabelStudioServer
from registry.audit import set_principal
from registry.database import translate_database_errors
from registry.errors import ConflictError, ContractFeedbackError, DeletedError, InvalidInputError

_TAUGHT_AT_ONCE = 100  # annotations; half a second to two on SQLite
_reading = Lock()
_logger = logging.getLogger(__name__)


def start_reading(services: Services, caller: Caller, sent: Project) -> None:
    """Start to read a project's annotations from the configured Label Studio, and to teach what is new.

    Raises InvalidInputError if no Label Studio is configured, ConflictError while a project is being read.
    """
    server = _get_server(services)
    if not _reading.acquire(blocking=False):
        raise ConflictError("A project of Label Studio is being read: start again when the log says that it is read")
    Thread(target=_read, args=(services, caller, server, sent), daemon=True).start()


def _read(services: Services, caller: Caller, server: LabelStudioServer, sent: Project) -> None:
    try:
        count = _teach_new(services, caller, server, sent)
        _logger.info("Project %d of Label Studio is read: %d annotations were new", sent.id, count)
    except (httpx.HTTPError, httpx.InvalidURL, ContractFeedbackError) as error:
        _logger.warning("Project %d of Label Studio cannot be read: %s", sent.id, error)
    finally:
        _reading.release()


def _teach_new(services: Services, caller: Caller, server: LabelStudioServer, sent: Project) -> int:
    """Teach what is new in a project, and return how many annotations that are.

    Each hundred are a job and a transaction of their own, so that other writers need not wait for all.
    """
    count, new = 0, _list_new(services, caller, server, sent)
    while reviews := list(islice(new, _TAUGHT_AT_ONCE)):
        with _open_session(services, caller) as session:
            teach_together(session, services, caller, reviews)
        count += len(reviews)
    return count


def _list_new(services: Services, caller: Caller, server: LabelStudioServer, sent: Project) -> Iterator[Review]:
    project = server.read_project(sent.id)
    if project.key != sent.key:
        raise InvalidInputError("CONTRACT_FEEDBACK_LABEL_STUDIO_URL is not the Label Studio that asked for this")
    config = read_label_config(project.label_config)
    with _open_session(services, caller) as session:
        known = list_known_annotations(session, project.key)
    for task in server.list_tasks(project.id):
        with _open_session(services, caller) as session:
            new = _compare(session, services, caller, project, config, task, known.get(task.id, ()))
        if new:
            yield new


def _get_server(services: Services) -> LabelStudioServer:
    url, token = services.settings.label_studio_url, services.settings.label_studio_token
    if not url or not token:
        raise InvalidInputError("Set CONTRACT_FEEDBACK_LABEL_STUDIO_URL and CONTRACT_FEEDBACK_LABEL_STUDIO_TOKEN")
    return LabelStudioServer(url, token)


def _compare(
    session: Session,
    services: Services,
    caller: Caller,
    project: Project,
    config: LabelConfig,
    task: AnnotatedTask,
    known: Collection[int],
) -> Review | None:
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
        return None
    try:
        return read_review(session, services, caller, project, config, task, latest)
    except (InvalidInputError, DeletedError) as error:
        _logger.warning("Annotation %d of Label Studio is left out: %s", latest.id, error)
        return None


@contextmanager
def _open_session(services: Services, caller: Caller) -> Iterator[Session]:
    with translate_database_errors(), Session(services.engine, expire_on_commit=False) as session:
        set_principal(session, caller.name)
        yield session
