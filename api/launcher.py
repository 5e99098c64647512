"""From stored jobs to flow runs: a moment after the request, or as soon as Prefect answers."""

import logging
import threading
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlmodel import Session

from api.prefect_runs import PrefectRuns
from api.schemas import JobStatus
from registry.annotations import get_latest_annotations, replace_annotations
from registry.documents import get_document
from registry.errors import InvalidInputError, UnavailableError
from registry.jobs import add_job, find_unlaunched_job, list_job_documents, list_launched_runs
from registry.tables import AnnotationBase, Job, JobType

_logger = logging.getLogger(__name__)
_LOOK_AGAIN_SECONDS = 5.0


class Launcher:
    """A thread that starts the deployment for the jobs that wait, when it is woken and every few seconds."""

    def __init__(self, engine: Engine, prefect: PrefectRuns) -> None:
        self._engine, self._prefect = engine, prefect
        self._woken, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stopped = True
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """Let the thread look at once, since a job was committed."""
        self._woken.set()

    def launch_waiting(self) -> None:
        """Start one run if jobs wait and none is about to begin: whichever begins next takes all of them along.

        Raises UnavailableError if Prefect does not answer; the jobs then stay as they are.
        """
        with Session(self._engine) as session:
            job = find_unlaunched_job(session)
            if job and not self._is_run_to_come(list_launched_runs(session)):
                job.flow_run_id = self._prefect.start(job, list_job_documents(session, [job.id]))
                session.add(job)
                session.commit()

    def _is_run_to_come(self, run_ids: Sequence[str]) -> bool:
        states = self._prefect.read_states(run_ids) if run_ids else {}
        return any(state.status == JobStatus.PENDING for state in states.values())

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.launch_waiting()
            except UnavailableError as error:
                _logger.warning("The jobs that wait are launched later: %s", error)
            except Exception:
                _logger.exception("Launching the jobs that wait failed; it is tried again")
            self._woken.wait(_LOOK_AGAIN_SECONDS)
            self._woken.clear()


def trigger_model_feedback(
    session: Session,
    launcher: Launcher,
    document_id: str,
    annotations: Sequence[AnnotationBase] | None = None,
    triggered_by: str = "api",
    note: str | None = None,
) -> Job:
    """Store feedback on a document, with the annotations that replace the document's if there are any, and launch it.

    It is launched after the commit, in its own time: from then on the feedback is not lost. Raises NotFoundError, and
    InvalidInputError for annotations that do not fit and where there is nothing to learn from.
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
    launcher.wake()
    return job
