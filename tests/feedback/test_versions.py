"""Which versions learned an annotation, and in which of them it is live."""

from sqlmodel import Session

from feedback.rollback import follow_promotion
from feedback.unlearning import Withdrawal, withdraw_lessons
from feedback.versions import list_versions_that_learned
from registry.annotations import list_annotations, replace_annotations, update_annotation
from registry.outcome import Decision
from registry.tables import Document, JobDocument, JobType
from tests.feedback.jobs import add_read_job
from tests.feedback.test_rollback import answer
from tests.registry.test_annotations import add_document, marked


def learn(
    session: Session, document_id: str, version: int, parent: int | None, decision: Decision = Decision.PROMOTED
) -> str:
    """Add feedback on a document that a version made from another one learns; return the job's id."""
    job = add_read_job(session, JobType.FEEDBACK, document_id)
    answer(session, job, version, parent, decision)
    return job.id


def annotate(session: Session) -> tuple[Document, str]:
    document = add_document(session, "a")
    replace_annotations(session, document, [marked("Bell")])
    return document, list_annotations(session, document.id)[0].id


def summarise(
    session: Session, document: Document, annotation_id: str, served: str | None
) -> list[tuple[str, int, bool]]:
    found = list_versions_that_learned(session, annotation_id, document.id, served)
    return [(each.version, each.annotation.revision, each.is_live) for each in found]


def test_versions_are_listed_with_the_revision_that_each_learned_and_live_until_rolled_back(session: Session) -> None:
    document, annotation_id = annotate(session)
    other = add_document(session, "b").id
    first = learn(session, document.id, 1, None)
    learn(session, other, 2, 1)
    update_annotation(session, document, list_annotations(session, document.id)[0], marked("Bell", name="payee"))
    session.flush()
    learn(session, document.id, 3, 2)
    learn(session, document.id, 4, 3, Decision.NOT_PROMOTED)
    assert summarise(session, document, annotation_id, "3") == [("4", 2, False), ("3", 2, True), ("1", 1, True)]
    follow_promotion(session, "2", "ana")
    session.flush()
    session.expire_all()
    found = list_versions_that_learned(session, annotation_id, document.id, "2")
    assert [(each.version, each.decision, each.is_live) for each in found] == [
        ("4", "not_promoted", False), ("3", "rolled_back", False), ("1", "promoted", True),
    ]  # fmt: skip
    assert (found[-1].job_id, found[-1].annotation.type, found[-1].learned_at is not None) == (first, "party", True)


def test_alias_that_was_moved_in_mlflow_counts_before_a_run_follows_it(session: Session) -> None:
    document, annotation_id = annotate(session)
    for version, parent in ((1, None), (2, 1), (3, 2)):
        learn(session, document.id, version, parent)
    assert summarise(session, document, annotation_id, "2") == [("3", 1, False), ("2", 1, True), ("1", 1, True)]
    assert summarise(session, document, annotation_id, None) == [("3", 1, False), ("2", 1, False), ("1", 1, False)]


def test_annotation_that_the_document_was_learned_without_later_is_not_live(session: Session) -> None:
    document, annotation_id = annotate(session)
    learn(session, document.id, 1, None)
    replace_annotations(session, document, [])
    assert summarise(session, document, annotation_id, "1") == [("1", 1, True)], "It is deleted, and not forgotten"
    learn(session, document.id, 2, 1)
    assert summarise(session, document, annotation_id, "2") == [("1", 1, False)]


def test_document_that_was_set_aside_within_its_job_was_not_learned(session: Session) -> None:
    document, annotation_id = annotate(session)
    job_id = learn(session, document.id, 1, None)
    session.get_one(JobDocument, (job_id, document.id)).contradiction = "It contradicts others"
    session.flush()
    assert summarise(session, document, annotation_id, "1") == []


def test_annotation_is_not_live_once_it_is_unlearned(session: Session) -> None:
    document, annotation_id = annotate(session)
    learn(session, document.id, 1, None)
    request = withdraw_lessons(session, Withdrawal([document.id]), "ana")
    assert summarise(session, document, annotation_id, "1") == [("1", 1, True)]
    answer(session, request, 2, 1, Decision.PROMOTED)
    assert summarise(session, document, annotation_id, "2") == [("1", 1, False)]
