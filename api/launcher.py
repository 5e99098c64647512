"""From stored jobs to flow runs: at once where Prefect answers, later where it does not."""

import logging
import threading
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlmodel import Session

from api.prefect_runs import PrefectRuns
from registry.annotations import get_latest_annotations, replace_annotations
from registry.documents import get_document
from registry.errors import InvalidInputError, UnavailableError
from registry.jobs import add_job, list_job_documents, list_unlaunched_jobs
from registry.tables import AnnotationBase, Job, JobType

_logger = logging.getLogger(__name__)
_RELAUNCH_SECONDS = 5.0


def trigger_model_feedback(
    session: Session,
    prefect: PrefectRuns,
    document_id: str,
    annotations: Sequence[AnnotationBase] | None = None,
    triggered_by: str = "api",
    note: str | None = None,
) -> Job:
    """Store feedback on a document, with the annotations that replace the document's if there are any, and launch it.

    Commits before it launches: from then on the feedback is not lost. Raises NotFoundError, and InvalidInputError for
    annotations that do not fit and where there is nothing to learn from.
    """
    document = get_document(session, document_id)
    if annotations is not None:
        replace_annotations(session, document, annotations)
    elif not get_latest_annotations(session, [document_id])[0].spans:
        raise InvalidInputError(
            "The document has no approved annotations to learn from. Send `annotations`; an empty list says that "
            "there is nothing to mark in it."
        )
    job = add_job(session, JobType.FEEDBACK, [document_id], triggered_by, note)
    session.commit()
    launch(session, prefect, job)
    return job


def launch(session: Session, prefect: PrefectRuns, job: Job) -> None:
    """Start the deployment for a stored job; where Prefect does not answer, the job stays to be launched later."""
    try:
        job.flow_run_id = prefect.start(job, list(list_job_documents(session, [job.id])))
    except UnavailableError as error:
        _logger.warning("Job %s is launched later: %s", job.id, error)
        return
    session.add(job)
    session.commit()


class Relauncher:
    """A thread that launches, every few seconds, the jobs that Prefect did not take at once."""

    def __init__(self, engine: Engine, prefect: PrefectRuns) -> None:
        self._engine, self._prefect = engine, prefect
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relauncher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_RELAUNCH_SECONDS):
            try:
                with Session(self._engine) as session:
                    for job in list_unlaunched_jobs(session):
                        launch(session, self._prefect, job)
            except Exception:
                _logger.exception("Launching the jobs that wait failed; it is tried again")
