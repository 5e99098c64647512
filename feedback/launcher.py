"""From stored jobs to flow runs: a moment after the request, or as soon as Prefect answers."""

import logging
import threading
import time
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlmodel import Session

from api.schemas import JobStatus
from feedback.prefect_runs import PrefectRuns, RunState
from registry.annotations import hash_annotations, list_annotations, replace_annotations
from registry.documents import get_document
from registry.errors import ConflictError, InvalidInputError, UnavailableError
from registry.jobs import (
    add_job,
    cancel_jobs,
    find_job_by_key,
    find_last_feedback,
    find_unlaunched_job,
    list_job_documents,
    list_unanswered_runs,
    release_jobs,
)
from registry.tables import AnnotationBase, AnnotationStatus, Job, JobType

_logger = logging.getLogger(__name__)
_LOOK_AGAIN_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
_LOST = RunState(JobStatus.FAILED, "Prefect does not know the run any more")


class Launcher:
    """A thread that starts the deployment for the jobs that wait, when it is woken and every few seconds.

    What a run has left without an answer when it failed or crashed waits again, until it is answered; what a cancelled
    one has left is answered so.
    """

    def __init__(self, engine: Engine, prefect: PrefectRuns) -> None:
        self._engine, self._prefect = engine, prefect
        self._paused_until: dict[str, float] = {}
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
            run_ids = list_unanswered_runs(session)
            states = self._prefect.read_states(run_ids) if run_ids else {}
            for run_id in run_ids:
                state = states.get(run_id, _LOST)
                if state.status == JobStatus.FAILED:
                    self._launch_again(session, run_id, state.message or "Prefect gives no reason")
                elif state.status == JobStatus.CANCELLED:
                    cancel_jobs(session, run_id)
                    session.commit()
                elif state.status in {JobStatus.PENDING, JobStatus.RUNNING} and state.is_old:
                    self._prefect.end_if_silent(run_id)
            now = time.monotonic()
            self._paused_until = {job_id: until for job_id, until in self._paused_until.items() if until > now}
            job = find_unlaunched_job(session, self._paused_until)
            if job and not any(state.status == JobStatus.PENDING for state in states.values()):
                job.flow_run_id = self._prefect.start(job, list_job_documents(session, [job.id]))
                session.add(job)
                session.commit()

    def _launch_again(self, session: Session, run_id: str, reason: str) -> None:
        """Have a run's jobs launched anew, since it has ended without answering them: later each time."""
        for job_id, attempts in release_jobs(session, run_id, reason).items():
            _logger.warning("Run %s of job %s ended without an answer (%s): launched again", run_id, job_id, reason)
            self._paused_until[job_id] = time.monotonic() + min(_LONGEST_PAUSE_SECONDS, 2**attempts)
        session.commit()

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
    idempotency_key: str | None = None,
) -> Job:
    """Store feedback on a document, with the annotations that replace the document's if there are any, and launch it.

    It is launched after the commit, in its own time: from then on the feedback is not lost. The same annotations again,
    or the same idempotency key, give the job that is there. Raises NotFoundError; InvalidInputError for annotations
    that do not fit, and where there is nothing to learn from; ConflictError for a key that came with other feedback.
    """
    document = get_document(session, document_id)
    if idempotency_key and (known := find_job_by_key(session, idempotency_key)):
        return _check_same(session, known, document_id, annotations)
    if annotations is not None:
        replace_annotations(session, document, annotations)
    else:
        annotations = list_annotations(session, document_id)
        if all(annotation.status != AnnotationStatus.APPROVED for annotation in annotations):
            raise InvalidInputError(
                "The document has no approved annotations to learn from. Send `annotations`; an empty list says that "
                "there is nothing to mark in it."
            )
    annotations_sha256 = hash_annotations(annotations)
    job = find_last_feedback(session, document_id)
    if job is None or job.annotations_sha256 != annotations_sha256 or job.has_failed:
        job = add_job(session, JobType.FEEDBACK, [document_id], triggered_by, note)
        job.annotations_sha256, job.idempotency_key = annotations_sha256, idempotency_key
        session.add(job)
    session.commit()
    launcher.wake()
    return job


def _check_same(session: Session, known: Job, document_id: str, annotations: Sequence[AnnotationBase] | None) -> Job:
    is_same = annotations is None or hash_annotations(annotations) == known.annotations_sha256
    if not is_same or list_job_documents(session, [known.id]) != [document_id]:
        raise ConflictError("This Idempotency-Key came with other feedback before: send a new key with this")
    return known
