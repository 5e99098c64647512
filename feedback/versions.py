"""Which versions come from which, and which of them learned an annotation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from registry.jobs import DECISION, MADE
from registry.outcome import Decision, Outcome
from registry.tables import Job, JobDocument, Lesson, LessonAnnotation

FROM = col(Job.outcome)["champion"]["version"].as_string()


@dataclass(frozen=True)
class LearnedAnnotation:
    """An annotation that a version learned: as which revision, by which job, and whether the served version has it."""

    version: str
    job_id: str
    annotation: LessonAnnotation
    decision: Decision
    learned_at: datetime | None
    is_live: bool


def trace(version: str, parents: Mapping[str, str | None]) -> set[str]:
    """Return a version and those it comes from; `parents` has the version that was the champion when each was made."""
    chain = set[str]()
    origin: str | None = version
    while origin and origin not in chain:
        chain.add(origin)
        origin = parents.get(origin)
    return chain


def find_newest_promoted(session: Session) -> str | None:
    """Return the version of the newest promoted job, None before the first.

    It is the champion, unless somebody has moved its alias in MLflow.
    """
    promoted = select(MADE).where(DECISION == Decision.PROMOTED, MADE.is_not(None))
    return session.exec(promoted.order_by(col(Job.number).desc()).limit(1)).first()


def list_versions_that_learned(
    session: Session, annotation_id: str, document_id: str, served: str | None
) -> list[LearnedAnnotation]:
    """Return the versions whose own jobs taught an annotation of a document, newest first.

    It is live in those that the served version comes from, unless a later one of these learned the document without it,
    or unlearned what was taught.
    """
    lessons = _list_lessons(session, document_id)
    live = _find_origins(session, served, lessons) if served and lessons else set[str]()
    found = dict[str, LearnedAnnotation]()
    for each in lessons:
        annotation, is_live = each.find(annotation_id), each.version in live and not each.is_unlearned
        if annotation is None and is_live:
            live = set()
        elif annotation and each.version not in found:
            learned_at, decision = each.outcome.decided_at, each.outcome.decision
            found[each.version] = LearnedAnnotation(
                each.version, each.job_id, annotation, decision, learned_at, is_live
            )
    return list(found.values())


@dataclass(frozen=True)
class _VersionLesson:
    """What a job taught of a document, and the version that learned it."""

    version: str
    job_id: str
    outcome: Outcome
    lesson: Lesson
    is_unlearned: bool

    def find(self, annotation_id: str) -> LessonAnnotation | None:
        """Return an annotation of the lesson."""
        return next((each for each in self.lesson.annotations if each.id == annotation_id), None)


def _list_lessons(session: Session, document_id: str) -> Sequence[_VersionLesson]:
    """Return what versions learned of a document, the newest job first."""
    query = select(Job, JobDocument).join(JobDocument).where(JobDocument.document_id == document_id)
    query = query.where(MADE.is_not(None), col(JobDocument.contradiction).is_(None))
    lessons = []
    for job, taught in session.exec(query.order_by(col(Job.number).desc())):
        challenger = job.outcome.challenger if job.outcome else None
        if job.outcome and challenger and challenger.version and taught.lesson:
            unlearning = session.get(Job, taught.withdrawn_by) if taught.withdrawn_by else None
            is_unlearned = unlearning is not None and unlearning.outcome is not None
            lessons.append(_VersionLesson(challenger.version, job.id, job.outcome, taught.lesson, is_unlearned))
    return lessons


def _find_origins(session: Session, served: str, lessons: Sequence[_VersionLesson]) -> set[str]:
    """Return the versions of these lessons that the served version comes from.

    They are those of promoted jobs, unless somebody has moved the champion's alias in MLflow and no run has followed
    yet: then the outcomes of all jobs are read.
    """
    if served == find_newest_promoted(session):
        return {each.version for each in lessons if each.outcome.decision == Decision.PROMOTED}
    query = select(MADE, FROM).where(MADE.is_not(None)).order_by(col(Job.number))
    return trace(served, dict(session.exec(query).all()))
