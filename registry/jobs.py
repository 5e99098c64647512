"""Queries on jobs: stored when asked for, claimed by a flow run, finished with its outcome."""

import random
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement
from sqlmodel import Session, and_, col, func, or_, select, update

from embeddinggemma_feasibility.evaluation import Item
from registry.audit import list_documents_changed_since
from registry.errors import NotFoundError
from registry.outcome import Outcome
from registry.tables import Correction, Document, Job, JobDocument, JobType

MAX_ATTEMPTS = 20
_SUSPECT_AFTER = 2
_SUSPECTS_TOGETHER = 256
_UNANSWERED = col(Job.outcome).is_(None)
_learned_by = func.coalesce(
    Job.claimed_by, Job.flow_run_id
)  # the run that learns from a job or, unclaimed, was launched


def add_job(
    session: Session, job_type: JobType, document_ids: Sequence[str], triggered_by: str, note: str | None = None
) -> Job:
    """Store a request to learn from documents, to be launched once committed."""
    job = Job(type=job_type, triggered_by=triggered_by, note=note)
    session.add(job)
    session.flush()
    session.add_all(JobDocument(job_id=job.id, document_id=document_id) for document_id in document_ids)
    session.flush()
    return job


def count_waiting_jobs(session: Session) -> int:
    """Return how many jobs have no answer yet."""
    return session.exec(select(func.count()).select_from(Job).where(_UNANSWERED)).one()


def find_job_by_key(session: Session, idempotency_key: str) -> Job | None:
    """Return the job that was stored for a client's idempotency key."""
    return session.exec(select(Job).where(Job.idempotency_key == idempotency_key)).first()


def find_last_feedback(session: Session, document_id: str) -> Job | None:
    """Return the job of a document's last feedback."""
    query = select(Job).join(JobDocument).where(JobDocument.document_id == document_id, Job.type == JobType.FEEDBACK)
    return session.exec(query.order_by(col(Job.number).desc()).limit(1)).first()


def create_training_run(session: Session, document_ids: Sequence[str], triggered_by: str) -> Job:
    """Store a request to train on many documents in one run."""
    return add_job(session, JobType.TRAINING_RUN, document_ids, triggered_by)


def get_job(session: Session, job_id: str) -> Job:
    """Return a job; raises NotFoundError."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"There is no job {job_id}")
    return job


def list_jobs(session: Session, offset: int, limit: int, job_type: JobType | None = None) -> tuple[Sequence[Job], int]:
    """Return a page of jobs, newest first, and how many there are in all."""
    query, count = select(Job), select(func.count()).select_from(Job)
    if job_type:
        query, count = query.where(Job.type == job_type), count.where(Job.type == job_type)
    page = session.exec(query.order_by(col(Job.number).desc()).offset(offset).limit(limit)).all()
    return page, session.exec(count).one()


def list_job_documents(session: Session, job_ids: Sequence[str], held_out: bool | None = None) -> Sequence[str]:
    """Return the ids of the documents these jobs learn from, each once, in the order of their upload."""
    query = select(Document.id).join(JobDocument).where(col(JobDocument.job_id).in_(job_ids))
    if held_out is not None:
        query = query.where(col(Document.held_out).is_(held_out))
    return list(dict.fromkeys(session.exec(query.order_by(col(Document.created_at))).all()))


def find_unlaunched_job(session: Session, without: Collection[str] = ()) -> Job | None:
    """Return the oldest job that no run was launched for and none has claimed or answered, but for `without`."""
    query = select(Job).where(
        col(Job.flow_run_id).is_(None),
        col(Job.claimed_by).is_(None),
        _UNANSWERED,
        col(Job.id).not_in(without),
    )
    return session.exec(query.order_by(col(Job.number)).limit(1)).first()


def list_unanswered_runs(session: Session) -> list[str]:
    """Return the runs that the jobs without an answer were claimed by or, until then, launched as."""
    query = select(_learned_by).where(_UNANSWERED, _learned_by.is_not(None)).distinct()
    return [str(found) for found in session.exec(query)]


def release_jobs(session: Session, run_id: str, reason: str) -> dict[str, int]:
    """Let the jobs that a run has ended without answering be launched again; return how often each was tried.

    What was tried MAX_ATTEMPTS times is answered with the reason instead. Two that release a run at once do so once.
    """
    reason = reason.replace("\0", "")  # an error's words may hold what PostgreSQL does not store
    released = session.exec(
        update(Job)
        .where(*_left_by(run_id))
        .values(claimed_by=None, flow_run_id=None, attempts=Job.attempts + 1, last_failure=reason)
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    attempts = {}
    for job in released.scalars().all():
        attempts[job.id] = job.attempts
        if job.attempts >= MAX_ATTEMPTS:
            told = f"Failed {job.attempts} times, at last because: {reason}. The annotations are kept"
            outcome = Outcome(flow_run_id=run_id, promoted=False, failed=True, reason=told)
            job.outcome = outcome.model_dump(mode="json")
            session.add(job)
    session.flush()
    return attempts


def cancel_jobs(session: Session, run_id: str) -> None:
    """Answer the jobs of a run that a person cancelled: the same feedback again is a new job.

    If the run is retried in Prefect, it claims them again.
    """
    reason = "The run was cancelled in Prefect. The annotations are kept: ask again to have them learned"
    outcome = Outcome(flow_run_id=run_id, promoted=False, failed=True, cancelled=True, reason=reason)
    answer = {"outcome": outcome.model_dump(mode="json"), "claimed_by": run_id}
    session.exec(update(Job).where(*_left_by(run_id)).values(answer))


def _left_by(run_id: str) -> tuple[ColumnElement[bool], ...]:
    """Select the jobs without an answer that a run has claimed or, unclaimed, was launched for."""
    return _UNANSWERED, _learned_by == run_id


def claim_jobs(session: Session, flow_run_id: str, job_id: str | None) -> list[Job]:
    """Claim for a run its own job and every job that waits unclaimed; a burst of feedback becomes one run.

    Jobs that this run claimed before a retry and has not finished, or failed, are claimed again. Of two runs that
    claim a job at once one gets it. Jobs whose runs have failed repeatedly have their runs apart from the others, half
    as many together each time: so the one that makes them fail is found, and 200 that only waited for a server are
    learned in a few runs.
    """
    attempts = session.exec(select(Job.attempts).where(Job.id == job_id)).first() or 0
    waits = and_(_UNANSWERED, col(Job.claimed_by).is_(None))
    along = and_(waits, Job.attempts < _SUSPECT_AFTER)
    if attempts >= _SUSPECT_AFTER:
        others = select(Job.id).where(waits, Job.attempts == attempts, Job.id != job_id).order_by(col(Job.number))
        along = col(Job.id).in_(others.limit(max(_SUSPECTS_TOGETHER >> attempts, 1) - 1))
    own = and_(_UNANSWERED, or_(col(Job.claimed_by) == flow_run_id, col(Job.id) == job_id))
    failed_here = and_(col(Job.claimed_by) == flow_run_id, col(Job.outcome)["failed"].as_boolean().is_(True))
    claimed = session.exec(
        update(Job)
        .where(or_(along, own, failed_here))
        .values(claimed_by=flow_run_id)
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    return list(claimed.scalars().all())


def is_rerun_by_hand(session: Session, job_id: str, flow_run_id: str) -> bool:
    """Tell whether the job was answered and this run is not the one that was launched for it."""
    job = get_job(session, job_id)
    return job.outcome is not None and flow_run_id not in (job.flow_run_id, job.claimed_by)


def add_manual_run(session: Session, document_ids: Sequence[str], triggered_by: str, flow_run_id: str) -> str:
    """Store the job of a run that a person started in Prefect, once, and return its id."""
    job = session.exec(select(Job).where(Job.flow_run_id == flow_run_id)).first()
    if job is None:
        job = create_training_run(session, document_ids, triggered_by)
        job.flow_run_id = flow_run_id
        session.add(job)
    return job.id


def finish_jobs(session: Session, job_ids: Sequence[str], outcome: Outcome, corrections: set[Item]) -> None:
    """Store what a run decided as the answer to its jobs, and the corrections it was the first to see."""
    for job in session.exec(select(Job).where(col(Job.id).in_(job_ids))):
        job.outcome = outcome.model_dump(mode="json")
        session.add(job)
    corrected = {document_id for document_id, _, _ in corrections}
    existing = set(session.exec(select(Document.id).where(col(Document.id).in_(corrected))).all())
    for document_id, type_name, value in corrections:
        if document_id in existing:
            session.merge(Correction(document_id=document_id, type=type_name, value=value))


def list_corrections(session: Session, document_ids: Sequence[str]) -> set[Item]:
    """Return the documents' corrections so far as (document, type, normalised value)."""
    query = select(Correction).where(col(Correction.document_id).in_(document_ids))
    return {(row.document_id, row.type, row.value) for row in session.exec(query)}


def list_corrected_documents(session: Session, without: Sequence[str], limit: int) -> Sequence[str]:
    """Return the newest documents that models learned corrections from."""
    query = select(Document.id).where(
        col(Document.held_out).is_(False),
        col(Document.id).not_in(without),
        col(Document.id).in_(select(Correction.document_id)),
    )
    return session.exec(query.order_by(col(Document.created_at).desc()).limit(limit)).all()


def list_held_out_documents(session: Session, limit: int) -> Sequence[str]:
    """Return the newest held-out documents that feedback was given on."""
    query = select(Document.id).where(
        col(Document.held_out).is_(True), col(Document.id).in_(select(JobDocument.document_id))
    )
    return session.exec(query.order_by(col(Document.created_at).desc()).limit(limit)).all()


def choose_replay_documents(session: Session, without: Sequence[str], limit: int) -> list[str]:
    """Return earlier documents to replay: what no champion has learned first, the newest ahead, then at random.

    A champion has learned what was refused before it, since that was replayed. It has not learned what was changed in a
    document's annotations since the document was last taught.
    """
    query = select(JobDocument.document_id, Job.id, col(Job.outcome)["promoted"].as_boolean()).join(Job).join(Document)
    query = query.where(col(Document.held_out).is_(False), col(Job.outcome).is_not(None))
    unlearned: dict[str, None] = {}
    learned: dict[str, None] = {}
    last_promoted = None
    for document_id, job_id, promoted in session.exec(query.order_by(col(Job.number))):
        unlearned.pop(document_id, None)
        unlearned[document_id] = None
        if promoted:
            learned |= unlearned
            unlearned, last_promoted = {}, job_id
    changed = list_documents_changed_since(session, last_promoted)
    unlearned |= {document_id: None for document_id in learned if document_id in changed}
    earlier = [document_id for document_id in learned if document_id not in unlearned]
    random.Random(len(learned) + len(unlearned)).shuffle(earlier)  # noqa: S311  (which are replayed is no secret)
    return [document_id for document_id in [*reversed(unlearned), *earlier] if document_id not in without][:limit]
