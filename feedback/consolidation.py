"""Consolidation: when it starts, how it lets feedback go first, and how it is handed over to a run on feedback."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from registry.annotations import count_approved_annotations
from registry.jobs import DECISION, add_job, count_waiting_jobs, find_job_by_key
from registry.lessons import list_learned_lessons
from registry.outcome import LEARNED
from registry.tables import Job, JobType

_LEAST_NEW_DOCUMENTS, _LEAST_NEW_ANNOTATIONS = 20, 1000
_LEAST_NEW_SHARE = 1 / 4  # of all learned documents
HANDOVER_KEY = "consolidation "  # the id of the flow run follows: the idempotency key of the job that hands over


@dataclass(frozen=True)
class Candidate:
    """A consolidated model: its MLflow run, the snapshot of `get_snapshot` it was fitted on, and what it was fitted on.

    `description` is for people. All requests to unlearn up to the number `withdrawals` were stored before its documents
    were read. Without an MLflow run, no model could be made of what is left after them.
    """

    mlflow_run_id: str | None
    snapshot: int
    description: str
    withdrawals: int = 0


def find_due_consolidation(session: Session) -> Job | None:
    """Return the newest job, up to which to consolidate, if enough is new and no job waits; else None.

    Enough is as many documents learned since the last consolidation, promoted or not, as a quarter of all learned
    documents, and at least 20 of them, or 1,000 annotations in them.
    """
    if count_waiting_jobs(session):
        return None
    last = select(func.max(col(Job.candidate_snapshot))).where(Job.type == JobType.CONSOLIDATION)
    new = list(list_learned_lessons(session, since=session.exec(last).one() or 0))
    if len(new) < _LEAST_NEW_SHARE * len(list_learned_lessons(session)):
        return None
    if len(new) < _LEAST_NEW_DOCUMENTS and count_approved_annotations(session, new) < _LEAST_NEW_ANNOTATIONS:
        return None
    return session.exec(select(Job).order_by(col(Job.number).desc()).limit(1)).first()


def add_consolidation(session: Session, flow_run_id: str, candidate: Candidate) -> Job:
    """Add the job that hands a candidate over, unless the flow run has added it; return the job.

    Raises ConflictError if another process adds it at the same time.
    """
    key = f"{HANDOVER_KEY}{flow_run_id}"
    if added := find_job_by_key(session, key):
        return added
    job = add_job(session, JobType.CONSOLIDATION, [], "consolidation", candidate.description)
    job.idempotency_key = key
    job.candidate_run_id, job.candidate_snapshot = candidate.mlflow_run_id, candidate.snapshot
    job.candidate_withdrawals = candidate.withdrawals
    session.add(job)
    session.flush()
    return job


def find_candidate(session: Session, job_ids: Sequence[str]) -> Candidate | None:
    """Return the candidate that the jobs of a run hand over, None for jobs that are feedback."""
    query = select(Job).where(col(Job.id).in_(job_ids), Job.type == JobType.CONSOLIDATION)
    job = session.exec(query).first()
    if job is None or job.candidate_snapshot is None:
        return None
    return Candidate(job.candidate_run_id, job.candidate_snapshot, job.note or "", job.candidate_withdrawals or 0)


def are_set_aside(session: Session, job_ids: Sequence[str]) -> bool:
    """Tell whether what any of these jobs taught is not learned any more, since a person went back."""
    of_jobs = select(Job.id).where(col(Job.id).in_(job_ids), DECISION.not_in(LEARNED))
    return session.exec(of_jobs.limit(1)).first() is not None


def describe_handover(candidate: Candidate, learned_meanwhile: int) -> str:
    """Return the sentences that say what the version of a hand-over was made from."""
    meanwhile = f"{learned_meanwhile} document{'s' * (learned_meanwhile != 1)} learned meanwhile"
    return f"{candidate.description} It then learned {meanwhile}." if learned_meanwhile else candidate.description


class FeedbackFirst:
    """Holds a consolidation while feedback waits or is learned.

    `has_feedback` is called at most once a second. After ten minutes without an end of the feedback, the consolidation
    goes on for one minute. `clock` returns monotonic seconds.
    """

    _CHECK_SECONDS, _LONGEST_HOLD_SECONDS, _RELIEF_SECONDS = 1.0, 600.0, 60.0

    def __init__(
        self,
        has_feedback: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._has_feedback, self._clock, self._sleep = has_feedback, clock, sleep
        self._next_check = clock()

    def hold(self) -> None:
        """Return once no feedback waits; call it between two pieces of work."""
        started = self._clock()
        if started < self._next_check:
            return
        pause = self._CHECK_SECONDS
        while self._has_feedback():
            if self._clock() - started >= self._LONGEST_HOLD_SECONDS:
                pause = self._RELIEF_SECONDS
                break
            self._sleep(self._CHECK_SECONDS)
        self._next_check = self._clock() + pause
