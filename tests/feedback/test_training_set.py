import dataclasses
from itertools import permutations

from sqlmodel import Session, select

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.halves import half_of
from feedback.claiming import answer_jobs
from feedback.consolidation import Candidate
from feedback.training_set import TrainingSet, load_training_set
from registry.annotations import add_annotation, replace_annotations
from registry.lessons import load_lessons
from registry.outcome import Decision
from registry.tables import Job, JobDocument, JobType
from tests.feedback.jobs import add_feedback, add_read_job, outcome
from tests.registry.test_annotations import add_document, marked


def learn(session: Session, name: str, decision: Decision) -> str:
    job, document_id = add_feedback(session, name)
    answer_jobs(session, [job.id], outcome(decision))
    return document_id


def test_documents_set_aside_are_not_replayed_until_feedback_on_them_is_promoted(session: Session) -> None:
    learned, refused = learn(session, "a", Decision.PROMOTED), learn(session, "b", Decision.NOT_PROMOTED)
    waiting, _ = add_feedback(session, "c")
    training_set = load_training_set(session, [waiting.id])
    assert ([data.document_id for data in training_set.replay], training_set.earlier_count) == ([learned], 1)
    again = add_read_job(session, JobType.FEEDBACK, refused)
    assert [data.document_id for data in load_training_set(session, [again.id]).training] == [refused]
    answer_jobs(session, [again.id], outcome())
    assert {data.document_id for data in load_training_set(session, [waiting.id]).replay} == {learned, refused}


def test_what_is_annotated_after_a_document_was_learned_is_neither_replayed_nor_measured(session: Session) -> None:
    document = add_document(session, "a")
    add_annotation(session, document, marked("Bell"))
    session.flush()
    job = add_read_job(session, JobType.FEEDBACK, document.id)
    answer_jobs(session, [job.id], outcome())
    replace_annotations(session, document, [])
    waiting, _ = add_feedback(session, "c")
    (replayed,) = load_training_set(session, [waiting.id]).replay
    assert replayed.spans == (Span(22, 26, "party"),)


def test_learned_document_that_gets_feedback_again_is_trained_on_and_not_replayed(session: Session) -> None:
    other, again = learn(session, "a", Decision.PROMOTED), learn(session, "b", Decision.PROMOTED)
    job = add_read_job(session, JobType.FEEDBACK, again)
    training_set = load_training_set(session, [job.id])
    assert [data.document_id for data in training_set.training] == [again]
    assert [data.document_id for data in training_set.replay] == [other]
    assert training_set.earlier_count == 1
    taught_other = session.exec(select(JobDocument.job_id).where(JobDocument.document_id == other)).one()
    assert training_set.lessons == {again: job.id, other: taught_other}


def test_documents_measured_are_replayed_ones_of_the_half_whose_blind_tagger_changes() -> None:
    documents = [AnnotationData(str(number), f"Text {number}", ()) for number in range(60)]
    halves = [[data for data in documents if half_of(data.text) == half] for half in (0, 1)]
    for half in (0, 1):
        training, *replay = halves[half]
        training_set = TrainingSet([], [training], replay + halves[1 - half], 59, {})
        assert training_set.measured == halves[1 - half][:20]
    both = TrainingSet([], [halves[0][0], halves[1][0]], documents, 60, {})
    assert both.measured == documents[:20]


def test_lessons_are_loaded_in_the_given_order_without_those_of_deleted_documents(session: Session) -> None:
    jobs = {document_id: job.id for job, document_id in (add_feedback(session, name) for name in "abc")}
    for order in permutations(jobs):
        lessons = {document_id: jobs[document_id] for document_id in order} | {"deleted": "a job"}
        assert [data.document_id for data in load_lessons(session, lessons)] == list(order)


def test_what_a_person_insisted_on_is_replayed_and_does_not_measure(session: Session) -> None:
    other, insisted = learn(session, "a", Decision.PROMOTED), learn(session, "b", Decision.PROMOTED)
    job = session.exec(select(Job).join(JobDocument).where(JobDocument.document_id == insisted)).one()
    job.insisted_by = "ana"
    session.add(job)
    training_set = dataclasses.replace(
        load_training_set(session, [add_feedback(session, "c")[0].id]), candidate=Candidate("run", 0, "")
    )
    assert {data.document_id for data in training_set.replay} == {other, insisted}
    assert [data.document_id for data in training_set.measured] == [other]
