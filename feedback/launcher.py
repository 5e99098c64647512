"""The launcher: a thread that starts flow runs for waiting jobs, releases jobs of failed runs, and consolidates."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine
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
from feedback.prefect_runs import PrefectRuns
from feedback.time_limits import TimeLimits, utc_now
from registry.database import translate_database_errors
from registry.errors import UnavailableError
from registry.jobs import get_snapshot, list_job_documents

_logger = logging.getLogger(__name__)
_UNKNOWN_RUN = RunState(JobStatus.FAILED, "Prefect no longer knows the run")


class Launcher:
    """Starts the deployment for waiting jobs, when woken and at regular intervals.

    The jobs of a failed, crashed or deleted run are launched again after a pause; those of a cancelled run are answered
    as cancelled. When no job waits and enough is new, it starts a consolidation. Several API processes may each have
    a launcher: what they have to agree on is in the jobs' rows.
    """

    def __init__(
        self, engine: Engine, prefect: PrefectRuns, limits: TimeLimits, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._engine, self._prefect, self._limits, self._clock = engine, prefect, limits, clock
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

    def wake(self) -> None:
        """Let the thread look for waiting jobs now."""
        self._woken.set()

    def launch_waiting(self) -> None:
        """Start at most one run, and none while a run is about to begin: that run will claim all waiting jobs.

        Raises UnavailableError if Prefect or the database does not answer; the jobs then remain as they are.
        """
        with translate_database_errors(), Session(self._engine) as session:
            run_ids = list_unanswered_runs(session)
            states = self._prefect.read_states(run_ids) if run_ids else {}
            for run_id in run_ids:
                self._settle(session, run_id, states.get(run_id, _UNKNOWN_RUN))
            job = find_unlaunched_job(session, self._clock(), self._limits.longest_pause_seconds)
            if job and not any(state.status == JobStatus.PENDING for state in states.values()):
                run_id = self._prefect.start(job, list_job_documents(session, [job.id]))
                store_launched_run(session, job.id, job.failures, run_id)
                session.commit()

    def start_due_consolidation(self) -> None:
        """Start a consolidation if one is due and none runs; crash one that has died.

        Raises UnavailableError if Prefect or the database does not answer.
        """
        with translate_database_errors(), Session(self._engine) as session:
            snapshot = get_snapshot(session)
            if snapshot == self._considered_snapshot:
                return
            if job := find_due_consolidation(session):
                running = self._prefect.read_consolidations()
                for run_id, state in running.items():
                    self._prefect.end_if_silent(run_id, state)
                if running:
                    return
                self._prefect.start_consolidation(job)
            self._considered_snapshot = snapshot

    def _settle(self, session: Session, run_id: str, state: RunState) -> None:
        """Release or answer the jobs of a run that has ended without an answer; crash a run that has died."""
        if state.status == JobStatus.FAILED:
            reason = state.message or "Prefect gives no reason"
            for job in release_jobs(session, run_id, reason):
                _logger.warning("Run %s, failure %d of job %s: %s", run_id, job.failures, job.id, reason)
                job.paused_until = self._clock() + timedelta(seconds=self._limits.pause_before_launch(job.failures))
                session.add(job)
            session.commit()
        elif state.status == JobStatus.CANCELLED:
            cancel_jobs(session, run_id)
            session.commit()
        elif state.status in {JobStatus.PENDING, JobStatus.RUNNING}:
            self._prefect.end_if_silent(run_id, state)

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.launch_waiting()
                self.start_due_consolidation()
            except UnavailableError as error:
                _logger.warning("Waiting jobs will be launched later: %s", error)
            except Exception:
                _logger.exception("Launching the waiting jobs failed; the next attempt follows")
            self._woken.wait(self._limits.launch_seconds)
            self._woken.clear()
