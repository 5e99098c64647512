"""The launcher: a thread that starts flow runs for waiting jobs, releases jobs of failed runs, and consolidates."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from math import inf

from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker
from sqlmodel import Session

from feedback.claiming import (
    cancel_jobs,
    find_unlaunched_job,
    list_unanswered_runs,
    release_jobs,
    store_launched_run,
)
from feedback.consolidation import find_due_consolidation
from feedback.job_state import JobStatus, RunState
from feedback.lost_versions import follow_mlflow
from feedback.prefect_runs import PrefectRuns
from feedback.time_limits import TimeLimits, utc_now
from feedback.unlearning import is_being_handed_over
from registry.database import translate_database_errors
from registry.errors import UnavailableError
from registry.jobs import UNLEARNINGS, get_snapshot, list_job_documents
from registry.models import ModelRegistry

_logger = logging.getLogger(__name__)
_FOLLOW_SECONDS = 15.0  # between two looks at what MLflow knows
_UNKNOWN_RUN = RunState(JobStatus.FAILED, "Prefect no longer knows the run")


class Launcher:
    """Starts the deployment for waiting jobs, when woken and at regular intervals.

    The jobs of a failed, crashed or deleted run are launched again after a pause; those of a cancelled run are answered
    as cancelled. When no job waits and enough is new, or when something is to be unlearned, it starts a consolidation.
    Several API processes may each have a launcher: what they have to agree on is in the jobs' rows.
    """

    def __init__(
        self,
        engine: Engine,
        prefect: PrefectRuns,
        registry: ModelRegistry,
        limits: TimeLimits,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine, self._prefect, self._limits, self._clock = engine, prefect, limits, clock
        self.failed_runs = 0  # that this process has noticed
        self._registry, self._followed_at = registry, -inf
        self._considered_snapshot: int | None = None
        self._woken, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stopped = True
        self.wake()
        self._thread.join()

    def wake(self, *job_ids: str) -> None:
        """Let the thread look for waiting jobs now; log the jobs in which a request was stored."""
        for job_id in job_ids:
            _logger.info("Stored in job %s", job_id, extra={"job_id": job_id})
        self._woken.set()

    def launch_waiting(self) -> None:
        """Start at most one run, and none while a run is about to begin: that run will claim all waiting jobs.

        Raises UnavailableError if Prefect or the database does not answer; the jobs then remain as they are.
        """
        with translate_database_errors(), Session(self._engine) as session:
            run_ids = list_unanswered_runs(session)
            states = self._prefect.read_states(run_ids) if run_ids else {}
            for run_id, is_consolidation in run_ids.items():
                state = states.get(run_id, _UNKNOWN_RUN)
                if is_consolidation:
                    self._settle_unlearning(session, run_id, state)
                else:
                    self._settle(session, run_id, state)
            job = find_unlaunched_job(session, self._clock(), self._limits.longest_pause_seconds)
            beginning = (run_id for run_id, state in states.items() if state.status == JobStatus.PENDING)
            if job and all(run_ids[run_id] for run_id in beginning):
                run_id = self._prefect.start(job, list_job_documents(session, [job.id]))
                store_launched_run(session, job.id, job.failures, run_id)
                session.commit()
                _log_launch(job.id, run_id)

    def start_due_consolidation(self) -> None:
        """Start a consolidation if one is due, or if something is to be unlearned, and none runs; crash one that died.

        Raises UnavailableError if Prefect or the database does not answer.
        """
        with translate_database_errors(), Session(self._engine) as session:
            request = find_unlaunched_job(session, self._clock(), self._limits.longest_pause_seconds, UNLEARNINGS)
            snapshot = get_snapshot(session)
            if not request and snapshot == self._considered_snapshot:
                return
            job = find_due_consolidation(session)
            if request or job:
                running = self._prefect.read_consolidations()
                for run_id, state in running.items():
                    self._prefect.end_if_silent(run_id, state)
                if running:
                    return
            if request:
                run_id = self._prefect.start_unlearning(request)
                store_launched_run(session, request.id, request.failures, run_id)
                session.commit()
                _log_launch(request.id, run_id)
                return
            if job:
                self._prefect.start_consolidation(job)
            self._considered_snapshot = snapshot

    def follow_mlflow(self) -> None:
        """Have what MLflow has lost taught again; look every so many seconds.

        Raises UnavailableError if MLflow or the database does not answer.
        """
        if time.monotonic() - self._followed_at < _FOLLOW_SECONDS:
            return
        self._followed_at = time.monotonic()
        with translate_database_errors():
            for done in follow_mlflow(sessionmaker(self._engine, class_=Session).begin, self._registry):
                _logger.warning(done)
                self.wake()

    def _settle_unlearning(self, session: Session, run_id: str, state: RunState) -> None:
        """Release the requests of a consolidation that has ended, unless it is being handed over."""
        if state.status == JobStatus.CANCELLED:
            self._release(session, run_id, "It was cancelled in Prefect")
        elif state.status == JobStatus.COMPLETED and not is_being_handed_over(session, run_id):
            self._release(session, run_id, "Its model was not promoted")
        else:
            self._settle(session, run_id, state)

    def _release(self, session: Session, run_id: str, reason: str) -> None:
        released = release_jobs(session, run_id, reason)
        for job in released:
            ids = {"job_id": job.id, "flow_run_id": run_id}
            _logger.warning("Run %s, failure %d of job %s: %s", run_id, job.failures, job.id, reason, extra=ids)
            job.paused_until = self._clock() + timedelta(seconds=self._limits.pause_before_launch(job.failures))
            session.add(job)
        session.commit()
        self.failed_runs += bool(released)

    def _settle(self, session: Session, run_id: str, state: RunState) -> None:
        """Release or answer the jobs of a run that has ended without an answer; crash a run that has died."""
        if state.status == JobStatus.FAILED:
            self._release(session, run_id, state.message or "Prefect gives no reason")
        elif state.status == JobStatus.CANCELLED:
            cancel_jobs(session, run_id)
            session.commit()
        elif state.status in {JobStatus.PENDING, JobStatus.RUNNING}:
            self._prefect.end_if_silent(run_id, state)

    def _run(self) -> None:
        while not self._stopped:
            for step in (self.launch_waiting, self.start_due_consolidation, self.follow_mlflow):
                try:
                    step()
                except UnavailableError as error:
                    _logger.warning("Jobs that wait, if any, are launched later: %s", error)
                except Exception:
                    _logger.exception("Launching the waiting jobs failed; the next attempt follows")
            self._woken.wait(self._limits.launch_seconds)
            self._woken.clear()


def _log_launch(job_id: str, run_id: str) -> None:
    _logger.info("Launched run %s for job %s", run_id, job_id, extra={"job_id": job_id, "flow_run_id": run_id})
