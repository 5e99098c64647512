"""What annotations in Label Studio teach: the types of their project alone, the last state of each, until deleted."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from feedback.launcher import Launcher
from feedback.submission import add_feedback
from registry.annotations import list_annotations, lock_annotations, replace_annotations
from registry.documents import get_document
from registry.jobs import add_job
from registry.lessons import find_last_lessons, retract_lessons, store_review
from registry.tables import AnnotationBase, Job, JobDocument, JobType, LabelStudioAnnotation


@dataclass(frozen=True)
class Review:
    """The state of one annotation in Label Studio: all that is marked of some types in a document."""

    project: str
    annotation_id: int
    task_id: int
    updated_at: datetime
    document_id: str
    types: frozenset[str]
    annotations: Sequence[AnnotationBase]


def teach_reviews(session: Session, launcher: Launcher, reviews: Sequence[Review], triggered_by: str) -> list[Job]:
    """Commit what is new in reviews of one project as one job, wake the launcher, and return the jobs that teach them.

    A review replaces the document's annotations of its types, and leaves those of other types. One that was taught
    before returns its job; one that is older than what is known teaches nothing.
    """
    jobs, new = dict[str, Job](), dict[str, Review]()
    for review in sorted(reviews, key=lambda each: (each.document_id, each.updated_at)):
        lock_annotations(session, review.document_id)
        known = _find(session, review.project, review.annotation_id)
        if known and known.updated_at == review.updated_at and (job := _find_lasting_job(session, known)):
            jobs[job.id] = job
        elif not _is_overtaken(session, review, known):
            new[review.document_id] = review
    if new:
        job = _add_job(session, list(new.values()), triggered_by)
        jobs[job.id] = job
    session.commit()
    launcher.wake(*jobs)
    return list(jobs.values())


def is_known(session: Session, project: str, annotation_id: int, updated_at: datetime) -> bool:
    """Tell whether this state of an annotation, or a newer one, has come in."""
    known = _find(session, project, annotation_id)
    return known is not None and (known.is_deleted or known.updated_at >= updated_at)


def list_known_annotations(session: Session, project: str) -> Mapping[int, Collection[int]]:
    """Return the annotations of a project that count, by their tasks."""
    query = select(LabelStudioAnnotation.task_id, LabelStudioAnnotation.annotation_id).where(
        LabelStudioAnnotation.project == project, col(LabelStudioAnnotation.job_id).is_not(None)
    )
    known = defaultdict[int, set[int]](set)
    for task_id, annotation_id in session.exec(query):
        known[task_id].add(annotation_id)
    return known


def forget_annotations(
    session: Session,
    launcher: Launcher,
    project: str,
    annotation_ids: Sequence[int],
    triggered_by: str,
    skipped_at: datetime | None = None,
) -> list[Job]:
    """Commit that annotations were deleted, or skipped at a time, and wake the launcher.

    Their documents are not reviewed any more for what they were reviewed for: the annotations of these types that they
    taught and nobody has changed since are removed, and the lessons on these types count no more. What such a lesson
    taught of other types is taught again; the jobs that do so are returned.
    """
    jobs = []
    for annotation_id in annotation_ids:
        if known := _find(session, project, annotation_id):
            lock_annotations(session, known.document_id)
            known = _find(session, project, annotation_id)
        if known is None or known.is_deleted or (skipped_at and skipped_at < known.updated_at):
            continue
        if known.job_id and (job := _forget(session, known, triggered_by)):
            jobs.append(job)
        known.job_id, known.is_deleted = None, skipped_at is None
        known.updated_at = skipped_at or known.updated_at
        session.add(known)
        session.commit()
    launcher.wake(*(job.id for job in jobs))
    return jobs


def _find(session: Session, project: str, annotation_id: int) -> LabelStudioAnnotation | None:
    return session.get(LabelStudioAnnotation, (project, annotation_id), populate_existing=True)


def _find_lasting_job(session: Session, known: LabelStudioAnnotation) -> Job | None:
    """Return the job that taught an annotation, unless the same again is to become a new one."""
    job = session.get(Job, known.job_id) if known.job_id else None
    return None if job and job.outcome and job.outcome.decision.may_be_repeated else job


def _is_overtaken(session: Session, review: Review, known: LabelStudioAnnotation | None) -> bool:
    """Tell whether a newer state is known: of the annotation, or of another one of the project on the document."""
    if known and (known.is_deleted or known.updated_at > review.updated_at):
        return True
    newer = _list_newer(session, review.document_id, review.updated_at)
    return any(each.project == review.project for each in newer)


def _list_newer(session: Session, document_id: str, than: datetime) -> Sequence[LabelStudioAnnotation]:
    """Return what counts on a document and was changed later."""
    query = select(LabelStudioAnnotation).where(
        LabelStudioAnnotation.document_id == document_id,
        LabelStudioAnnotation.updated_at > than,
        col(LabelStudioAnnotation.job_id).is_not(None),
    )
    return session.exec(query).all()


def _add_job(session: Session, reviews: Sequence[Review], triggered_by: str) -> Job:
    """Add a job that teaches the reviews, each of another document, and remember that it does."""
    types = frozenset[str]().union(*(review.types for review in reviews))
    merged = {review.document_id: _merge(session, review) for review in reviews}
    if len(reviews) == 1:
        document = get_document(session, reviews[0].document_id)
        job = add_feedback(session, document, merged[document.id], triggered_by, looked_for=types)
    else:
        for document_id, annotations in merged.items():
            replace_annotations(session, get_document(session, document_id), annotations)
        job = add_job(session, JobType.TRAINING_RUN, list(merged), triggered_by)
        store_review(session, job.id, types)
    for review in reviews:
        _remember(session, review, job.id)
    return job


def _merge(session: Session, review: Review) -> list[AnnotationBase]:
    """Return the document's annotations after the review: those of other types stay."""
    return [*list_others(session, review.document_id, review.types), *review.annotations]


def list_others(session: Session, document_id: str, types: Collection[str]) -> list[AnnotationBase]:
    """Return a document's annotations of other types than these, which a review of these types keeps."""
    others = [each for each in list_annotations(session, document_id) if each.type not in types]
    return [AnnotationBase.model_validate(each, from_attributes=True) for each in others]


def _remember(session: Session, review: Review, job_id: str) -> None:
    session.merge(
        LabelStudioAnnotation(
            project=review.project,
            annotation_id=review.annotation_id,
            task_id=review.task_id,
            document_id=review.document_id,
            updated_at=review.updated_at,
            types=sorted(review.types),
            job_id=job_id,
        )
    )


def _forget(session: Session, known: LabelStudioAnnotation, triggered_by: str) -> Job | None:
    """Undo what an annotation says of a document, but for types that were reviewed since.

    A lesson that is not partial is later: its reviewer looked for all types, over our API.
    """
    last = find_last_lessons(session, [known.document_id]).get(known.document_id)
    types = set(known.types) if last is None or last.is_partial else set[str]()
    for newer in _list_newer(session, known.document_id, known.updated_at):
        types -= set(newer.types)
    if not types:
        return None
    document = get_document(session, known.document_id)
    taught = _list_taught(session, known, types)
    remaining = retract_lessons(session, document.id, types)
    kept = [each for each in list_annotations(session, document.id) if (each.id, each.revision) not in taught]
    others = [AnnotationBase.model_validate(each, from_attributes=True) for each in kept]
    if remaining:
        return add_feedback(session, document, others, triggered_by, looked_for=remaining)
    replace_annotations(session, document, others)
    return None


def _list_taught(session: Session, known: LabelStudioAnnotation, types: Collection[str]) -> set[tuple[str, int]]:
    """Return the ids and revisions of what an annotation taught of some types; what was changed since is of others."""
    lesson = session.get_one(JobDocument, (known.job_id, known.document_id)).lesson
    return {(each.id, each.revision) for each in lesson.annotations if each.type in types} if lesson else set()
