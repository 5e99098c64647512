"""From a reviewer's feedback, or a request to train, to a stored job."""

from collections.abc import Collection, Sequence

from sqlmodel import Session, select

from feedback.launcher import Launcher
from feedback.unlearning import Withdrawal, withdraw_lessons
from registry.annotations import (
    hash_annotations,
    list_annotated_documents,
    list_annotations,
    lock_annotations,
    replace_annotations,
)
from registry.documents import check_documents_exist
from registry.errors import ConflictError, InvalidInputError, TooManyError
from registry.jobs import (
    MOST_DOCUMENTS,
    DocumentState,
    add_job,
    count_waiting_jobs,
    find_job_by_key,
    find_last_feedback,
    list_contradictions,
    list_job_documents,
    select_documents_in,
    select_documents_with_feedback,
)
from registry.lessons import store_lessons_again, store_review
from registry.outcome import Decision
from registry.tables import AnnotationBase, AnnotationStatus, Document, Job, JobDocument, JobType, ListedDocument


def trigger_model_feedback(
    session: Session,
    launcher: Launcher,
    document: Document,
    annotations: Sequence[AnnotationBase] | None = None,
    triggered_by: str = "api",
    note: str | None = None,
    idempotency_key: str | None = None,
) -> Job:
    """Commit feedback on a document as a job and wake the launcher; the launch happens after the return.

    See `add_feedback`. Raises InvalidInputError for annotations that do not fit the text and where there is nothing to
    learn, ConflictError for an idempotency key that came with other feedback.
    """
    job = add_feedback(session, document, annotations, triggered_by, note, idempotency_key)
    session.commit()
    launcher.wake(job.id)
    return job


def add_feedback(
    session: Session,
    document: Document,
    annotations: Sequence[AnnotationBase] | None,
    triggered_by: str,
    note: str | None = None,
    idempotency_key: str | None = None,
    looked_for: Collection[str] | None = None,
) -> Job:
    """Add feedback on a document as a job; the caller commits. Raises as `trigger_model_feedback` does.

    `annotations` replace those of the document; None keeps them. The reviewer looked for the types `looked_for`, None
    for all. The annotations of the last feedback again, if they have not been changed since, or a known idempotency
    key, return the existing job; feedback that was set aside or withdrawn, or whose job failed, becomes a new one. What
    the job teaches is stored with it.
    """
    if idempotency_key and (known := find_job_by_key(session, idempotency_key)):
        return _check_same_feedback(session, known, document, annotations)
    if annotations is not None:
        stored_sha256 = replace_annotations(session, document, annotations)
    else:
        lock_annotations(session, document.id)
        annotations = list_annotations(session, document.id)
        stored_sha256 = hash_annotations(annotations)
        _check_any_approved(annotations)
    annotations_sha256 = hash_annotations(annotations)
    job = find_last_feedback(session, document.id)
    is_repeated = job is not None and job.annotations_sha256 == annotations_sha256 == stored_sha256
    if job is None or not is_repeated or _may_be_repeated(session, job, document.id, looked_for):
        job = add_job(session, JobType.FEEDBACK, [document.id], triggered_by, note)
        job.annotations_sha256, job.idempotency_key = annotations_sha256, idempotency_key
        session.add(job)
        store_review(session, job.id, looked_for)
    return job


def create_training_run(
    session: Session, launcher: Launcher, document_ids: Sequence[str] | None, triggered_by: str
) -> Job:
    """Commit a request to train on many documents in one run, and wake the launcher.

    None stands for all annotated documents but those that are set aside.

    Raises NotFoundError for an unknown document, InvalidInputError for none, for too many, and for one that nobody has
    reviewed: it has no approved annotations, and there was no feedback, which may say that it contains no entities.
    """
    if document_ids is None:
        in_state = select_documents_in(DocumentState.SET_ASIDE)
        set_aside = set(session.exec(select(ListedDocument.document_id).where(in_state)))
        document_ids = [each for each in list_annotated_documents(session) if each not in set_aside]
    else:
        document_ids = list(dict.fromkeys(document_ids))
        check_documents_exist(session, document_ids)
        _check_reviewed(session, document_ids)
    if not document_ids:
        raise InvalidInputError("There is no annotated document to train on")
    if len(document_ids) > MOST_DOCUMENTS:
        raise InvalidInputError(f"A training run has {MOST_DOCUMENTS} documents at most, not {len(document_ids)}")
    job = add_job(session, JobType.TRAINING_RUN, document_ids, triggered_by)
    session.commit()
    launcher.wake(job.id)
    return job


def request_unlearning(session: Session, launcher: Launcher, withdrawal: Withdrawal, triggered_by: str) -> Job:
    """Commit a request for a version that never learned some lessons, and wake the launcher; see `withdraw_lessons`."""
    job = withdraw_lessons(session, withdrawal, triggered_by)
    session.commit()
    launcher.wake(job.id)
    return job


def teach_again(session: Session, launcher: Launcher, job: Job, triggered_by: str) -> Job:
    """Commit a new job on the documents of one that are set aside or that failed, as they are annotated now.

    What was refused or contradicts what was learned is then learned all the same, and the job names who insists.

    Raises ConflictError for a job without such documents, or if somebody has changed what is insisted on.
    """
    decision = job.outcome.decision if job.outcome else None
    document_ids: Sequence[str] = list(list_contradictions(session, [job.id])[job.id])
    if decision in {None, Decision.PROMOTED, Decision.NOT_TRAINED} and not document_ids:
        raise ConflictError(f"Job {job.id} is not set aside: it waits, or what it was to teach is learned")
    is_contradicted = bool(document_ids) or decision == Decision.NOT_PROMOTED
    document_ids = document_ids or list_job_documents(session, [job.id])
    if not document_ids:
        raise ConflictError(f"Job {job.id} has no documents any more")
    again = add_job(session, job.type, document_ids, triggered_by, job.note)
    store_lessons_again(session, again.id, job.id)
    if is_contradicted:
        again.insisted_by = triggered_by
        _check_unchanged(session, job, again)
    if job.type == JobType.FEEDBACK:
        again.annotations_sha256 = hash_annotations(list_annotations(session, document_ids[0]))
    session.commit()
    launcher.wake(again.id)
    return again


def check_queue_has_space(session: Session, max_waiting_jobs: int) -> None:
    """Raise TooManyError if as many jobs wait as are allowed to."""
    if count_waiting_jobs(session) >= max_waiting_jobs:
        raise TooManyError(f"{max_waiting_jobs} jobs are waiting already: send this one later")


def _check_unchanged(session: Session, refused: Job, again: Job) -> None:
    """Raise ConflictError unless a job teaches the same of its documents as one that was refused."""
    query = select(JobDocument).where(JobDocument.job_id == again.id)
    for row in session.exec(query):
        before = session.get_one(JobDocument, (refused.id, row.document_id))
        if before.lesson and row.lesson and before.lesson.spans != row.lesson.spans:
            raise ConflictError(
                f"Document {row.document_id} was annotated otherwise after it was set aside: send feedback on it"
            )


def _may_be_repeated(session: Session, job: Job, document_id: str, looked_for: Collection[str] | None) -> bool:
    """Tell whether the same annotations again become a new job.

    They do if no version has learned them, if none is to, or if their reviewer looked for further types.
    """
    row = session.get_one(JobDocument, (job.id, document_id))
    if row.withdrawn_by or (job.outcome and job.outcome.decision.may_be_repeated):
        return True
    if row.lesson is None:
        return False
    return row.lesson.is_partial if looked_for is None else not set(looked_for) <= set(row.lesson.reviewed_types)


def _check_same_feedback(
    session: Session, known: Job, document: Document, annotations: Sequence[AnnotationBase] | None
) -> Job:
    is_same = annotations is None or hash_annotations(annotations) == known.annotations_sha256
    if not is_same or list_job_documents(session, [known.id]) != [document.id]:
        raise ConflictError("This Idempotency-Key came with other feedback before: send a new key")
    return known


def _check_reviewed(session: Session, document_ids: Sequence[str]) -> None:
    reviewed = {*list_annotated_documents(session), *session.exec(select_documents_with_feedback())}
    if unreviewed := [document_id for document_id in document_ids if document_id not in reviewed]:
        raise InvalidInputError(
            f"The document {unreviewed[0]} has no approved annotations to learn from. Send feedback on it: an empty "
            "list of annotations says that it contains no entities."
        )


def _check_any_approved(annotations: Sequence[AnnotationBase]) -> None:
    if all(annotation.status != AnnotationStatus.APPROVED for annotation in annotations):
        raise InvalidInputError(
            "The document has no approved annotations to learn from. Send `annotations`; an empty list says that the "
            "document contains no entities."
        )
