"""How jobs pass to flow runs: launched for one, claimed, answered, or released when the run fails."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count

from sqlalchemy import ColumnElement, false
from sqlmodel import Session, and_, col, or_, select, update

from feedback.announcements import announce_run
from feedback.time_limits import utc_now
from registry.documents import check_documents_exist
from registry.jobs import DECISION, UNANSWERED, WAITING, add_job, get_job, list_documents_by_job
from registry.outcome import Decision, Outcome
from registry.tables import Job, JobDocument, JobType

MAX_FAILURES = 20  # with the pauses of `TimeLimits`, about 70 minutes
_SUSPECT_FAILURES = 2
_HOW_TO_GO_ON = "Change the annotations and send them again, or insist on them with POST /jobs/{job_id}/teach."
_MAX_SUSPECTS = 64  # claimed together after the second failure; halved at each further one


def find_unlaunched_job(
    session: Session, now: datetime, longest_pause_seconds: float, among: ColumnElement[bool] = WAITING
) -> Job | None:
    """Return the oldest of the unanswered jobs that no run was launched for or has claimed and that is not paused.

    A pause that ends later than the longest one is void: the clock was set back.
    """
    until, latest = col(Job.paused_until), now + timedelta(seconds=longest_pause_seconds)
    query = select(Job).where(among, Job.run_id.is_(None), or_(until.is_(None), until <= now, until > latest))
    return session.exec(query.order_by(col(Job.number)).limit(1)).first()


def store_launched_run(session: Session, job_id: str, failures: int, run_id: str) -> None:
    """Store the run launched for a job with so many failures, unless another process has counted its failure since."""
    same = and_(Job.id == job_id, Job.failures == failures)
    session.exec(update(Job).where(same).values(launched_run_id=run_id))


def list_unanswered_runs(session: Session) -> dict[str, bool]:
    """Return the ids of the runs that are to answer jobs but have not, and whether each is a consolidation."""
    query = select(Job.run_id, Job.type).where(UNANSWERED, Job.run_id.is_not(None)).distinct()
    return {str(run_id): job_type == JobType.UNLEARNING for run_id, job_type in session.exec(query)}


def claim_jobs(session: Session, flow_run_id: str, job_id: str | None) -> list[Job]:
    """Claim for a run its own job and all unclaimed feedback, so that one run learns a burst of it.

    A run that is retried claims the jobs that it claimed before, unless it answered them with a model, and no others,
    since it may have trained already. If two runs claim a job at once, one of them gets it.

    A job whose runs failed twice is suspected of making them fail. No run claims it along with other jobs; suspects are
    claimed together in groups that halve at each failure. This isolates one bad job, while 200 jobs that only waited
    for a server are learned in a few runs.

    A consolidation is handed over by a run of its own, so that its refusal refuses no feedback. Requests to unlearn are
    claimed by consolidations.
    """
    own_type, failures = session.exec(select(Job.type, Job.failures).where(Job.id == job_id)).first() or (None, 0)
    waits = and_(WAITING, col(Job.claiming_run_id).is_(None), Job.type != JobType.CONSOLIDATION)
    along = and_(waits, Job.failures < _SUSPECT_FAILURES)
    if own_type == JobType.CONSOLIDATION:
        along = false()
    elif failures >= _SUSPECT_FAILURES:
        others = select(Job.id).where(waits, Job.failures == failures, Job.id != job_id).order_by(col(Job.number))
        along = col(Job.id).in_(others.limit(max(_MAX_SUSPECTS >> (failures - _SUSPECT_FAILURES), 1) - 1))
    claimed_before = col(Job.claiming_run_id) == flow_run_id
    own = and_(WAITING, or_(claimed_before, col(Job.id) == job_id))
    failed_here = and_(claimed_before, DECISION.in_([Decision.FAILED, Decision.CANCELLED]))
    if session.exec(select(Job.id).where(claimed_before).limit(1)).first():
        along = false()
    claimed = session.exec(
        update(Job)
        .where(or_(along, own, failed_here))
        .values(claiming_run_id=flow_run_id)
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    return list(claimed.scalars().all())


def are_suspected(session: Session, job_ids: Sequence[str]) -> bool:
    """Tell whether any of the jobs is suspected: runs failed on it, or a batch with it was refused."""
    suspected = select(Job.id).where(col(Job.id).in_(job_ids), Job.failures >= _SUSPECT_FAILURES)
    return session.exec(suspected.limit(1)).first() is not None


def answer_jobs(session: Session, job_ids: Sequence[str], outcome: Outcome) -> None:
    """Store the outcome of a run as the answer to its jobs, and announce it once, even if the task is retried.

    Each job gets what concerns its documents; a hand-over has none, and gets all.
    """
    is_new = or_(UNANSWERED, DECISION.not_in([outcome.decision]))
    query = select(Job.id).where(col(Job.id).in_(job_ids), is_new).order_by(col(Job.number))
    changed = session.exec(query).all()
    for job_id, document_ids in list_documents_by_job(session, job_ids).items():
        answer = outcome.restrict(document_ids) if document_ids else outcome
        session.exec(update(Job).where(col(Job.id) == job_id).values(outcome=answer))
    session.exec(update(Job).where(col(Job.id).in_(changed)).values(answered_at=utc_now()))
    announce_run(session, changed, outcome)


def set_aside_documents(session: Session, job_ids: Sequence[str], reasons: Mapping[str, str], run_id: str) -> list[str]:
    """Set documents of a run's jobs aside, each with its reason, and answer the jobs that have no other documents.

    Returns the ids of the jobs that remain.
    """
    of_jobs = select(JobDocument).where(col(JobDocument.job_id).in_(job_ids))
    reason_of_job = dict[str, str]()
    for row in session.exec(of_jobs.where(col(JobDocument.document_id).in_(reasons))):
        row.contradiction = reason_of_job[row.job_id] = reasons[row.document_id]
        session.add(row)
    session.flush()
    others = select(JobDocument.job_id).where(col(JobDocument.job_id).in_(job_ids))
    remaining = set(session.exec(others.where(col(JobDocument.contradiction).is_(None))))
    for job_id, reason in reason_of_job.items():
        if job_id not in remaining:
            outcome = Outcome(
                decision=Decision.NOT_PROMOTED,
                reason=f"Set aside: {reason} {_HOW_TO_GO_ON}",
                flow_run_id=run_id,
                decided_at=utc_now(),
            )
            answer_jobs(session, [job_id], outcome)
    return [job_id for job_id in job_ids if job_id in remaining or job_id not in reason_of_job]


def release_jobs(session: Session, run_id: str, reason: str) -> Sequence[Job]:
    """Release the jobs of a run that ended without answering them, count the failure, and return them.

    They are launched again, except those with MAX_FAILURES failures, which are answered with the reason; a request to
    unlearn is launched again for ever. If two processes release the jobs of one run at once, one of them does.
    """
    reason = reason.replace("\0", "")  # PostgreSQL stores no NUL characters
    updated = session.exec(
        update(Job)
        .where(*_unanswered_by(run_id))
        .values(claiming_run_id=None, launched_run_id=None, failures=Job.failures + 1, last_failure=reason)
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    released = updated.scalars().all()
    for job in released:
        if job.failures >= MAX_FAILURES and job.type != JobType.UNLEARNING:
            answer = f"{job.failures} runs failed, the last because: {reason}. The annotations are kept."
            job.outcome = Outcome(decision=Decision.FAILED, reason=answer, flow_run_id=run_id, decided_at=utc_now())
            job.answered_at = utc_now()
            session.add(job)
    session.flush()
    return released


def split_jobs(session: Session, job_ids: Sequence[str], reason: str) -> None:
    """Release jobs whose common version was refused: runs on at most half of them each find those that are to blame."""
    halvings = next(n for n in count() if _MAX_SUSPECTS >> n <= max(len(job_ids) // 2, 1))
    refused = f"Refused together with {len(job_ids) - 1} other jobs, so each part is tried alone. {reason}"
    session.exec(
        update(Job)
        .where(col(Job.id).in_(job_ids))
        .values(
            claiming_run_id=None,
            launched_run_id=None,
            failures=_SUSPECT_FAILURES + halvings,
            last_failure=refused,
            paused_until=None,
        )
    )


def cancel_jobs(session: Session, run_id: str) -> None:
    """Answer the jobs of a run that was cancelled in Prefect; if it is retried there, it claims them again.

    A request to unlearn is left: nobody can take it back.
    """
    reason = "The run was cancelled in Prefect. The annotations are kept: send the feedback again to learn from them."
    outcome = Outcome(decision=Decision.CANCELLED, reason=reason, flow_run_id=run_id, decided_at=utc_now())
    of_run = (*_unanswered_by(run_id), WAITING)
    answer = {"outcome": outcome, "answered_at": utc_now(), "claiming_run_id": run_id}
    session.exec(update(Job).where(*of_run).values(answer))


def is_rerun_by_hand(session: Session, job_id: str, flow_run_id: str) -> bool:
    """Tell whether the job was answered and this is neither the run launched for it nor the one that answered it."""
    job = get_job(session, job_id)
    return job.outcome is not None and flow_run_id not in {job.launched_run_id, job.claiming_run_id}


def add_manual_job(session: Session, document_ids: Sequence[str], triggered_by: str, flow_run_id: str) -> str:
    """Add a job for a run that a person started in Prefect, unless it has one; return the job's id.

    Raises NotFoundError for an unknown document.
    """
    job = session.exec(select(Job).where(Job.launched_run_id == flow_run_id)).first()
    if job is None:
        check_documents_exist(session, document_ids)
        job = add_job(session, JobType.TRAINING_RUN, document_ids, triggered_by)
        job.launched_run_id = flow_run_id
        session.add(job)
    return job.id


def _unanswered_by(run_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Select the unanswered jobs of a run."""
    return UNANSWERED, Job.run_id == run_id
