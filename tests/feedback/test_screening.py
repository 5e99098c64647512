"""Which documents are set aside before they are learned, and what their reviewers are told."""

import dataclasses

import pytest
from sqlmodel import Session

from embeddinggemma_feasibility.annotation_data import AnnotationData, Entity, Span
from embeddinggemma_feasibility.calibration import Calibration, Example, Measurement
from embeddinggemma_feasibility.contract_data_trainer import fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder
from feedback.claiming import answer_jobs, set_aside_documents
from feedback.launcher import Launcher
from feedback.screening import describe_objection, explain_objections, find_objection, reads_well
from feedback.submission import teach_again
from feedback.training_set import load_training_set
from registry.annotations import add_annotation, replace_annotations
from registry.audit import set_principal
from registry.jobs import DocumentState, add_job, list_contradictions, select_documents_in
from registry.lessons import list_learned_lessons, take_lessons
from registry.listed_documents import list_documents
from registry.outcome import Decision
from registry.tables import JobType
from tests.feedback.jobs import add_feedback, add_read_job, outcome
from tests.registry.test_annotations import add_document, marked

WORDS = ["Acme", "Leeds", "Mayday", "Euros", "Delaware"]
TEXT = " ".join(WORDS)


def span(word: str, name: str) -> Span:
    start = TEXT.index(word)
    return Span(start, start + len(word), name)


def found(word: str, name: str, confidence: float = 0.5) -> Entity:
    place = span(word, name)
    return Entity(name, word, place.start, place.end, confidence)


KNOWN = ["party", "date", "city", "amount", "other", *(f"type {number}" for number in range(5))]
READ = [found(word, f"type {number}") for number, word in enumerate(WORDS)]


def review(*spans: Span) -> AnnotationData:
    return AnnotationData("a", TEXT, spans)


def test_document_is_set_aside_if_more_than_three_quarters_of_the_likely_values_are_not_marked() -> None:
    marked_as_read = [span(word, f"type {number}") for number, word in enumerate(WORDS)]
    assert find_objection(review(*marked_as_read[:2]), READ, [], KNOWN, True) is None
    objection = find_objection(review(marked_as_read[0]), READ, [], KNOWN, True)
    assert objection
    assert (len(objection.contradicted), objection.read) == (4, 5)
    unlikely = [found(entity.value, entity.type, 0.49) for entity in READ]
    assert find_objection(review(), unlikely, [], KNOWN, True) is None
    assert find_objection(review(), READ[:2], [], KNOWN, True) is None


def test_values_that_are_not_marked_speak_against_nothing_while_the_model_reads_badly() -> None:
    assert find_objection(review(), READ, [], KNOWN, False) is None


@pytest.mark.parametrize(
    ("contradicting", "others", "well"), [(0, 9, False), (0, 10, True), (1, 18, False), (1, 19, True)]
)
def test_model_reads_well_if_at_most_one_in_twenty_documents_that_measured_it_contradicts_it(
    tiny_encoder: Encoder, contracts: list[AnnotationData], contradicting: int, others: int, well: bool
) -> None:
    model = fine_tune_model(contracts, encoder=tiny_encoder).model
    model.served.calibration = Calibration(threshold=0)
    examples = [[Example(f"{number}", 0.99, True, is_right) for number in range(4)] for is_right in (False, True)]
    wrong, right = (Measurement(examples=of_document, gold_count=4) for of_document in examples)
    model.measurements.clear()
    model.measurements.update({f"wrong {number}": wrong for number in range(contradicting)})
    model.measurements.update({f"right {number}": right for number in range(others)})
    assert reads_well(model) == well


def test_document_is_set_aside_if_more_than_half_of_what_is_read_is_marked_as_another_type() -> None:
    unlikely = [found(entity.value, entity.type, 0.2) for entity in READ[:4]]
    retyped = [span(word, "other") for word in WORDS]
    assert find_objection(review(*retyped[:2]), unlikely, [], KNOWN, True) is None
    objection = find_objection(review(*retyped[:3]), unlikely, [], KNOWN, True)
    assert objection
    assert (len(objection.contradicted), objection.read) == (3, 4)
    assert find_objection(review(retyped[0]), unlikely[:1], [], KNOWN, True) is None
    other_extents = [Span(each.start, each.end - 1, entity.type) for each, entity in zip(retyped, READ, strict=True)]
    assert find_objection(review(*other_extents), unlikely, [], KNOWN, True) is None


def test_type_that_the_reviewer_did_not_know_speaks_against_nothing() -> None:
    assert find_objection(AnnotationData("a", TEXT, (), frozenset({"other"})), READ, [], KNOWN, True) is None


def test_document_is_set_aside_if_more_than_half_of_what_two_reviewers_agreed_on_is_taken_out() -> None:
    agreed = [span(word, "party") for word in WORDS]
    assert find_objection(review(*agreed[:3]), [], agreed, KNOWN, True) is None
    objection = find_objection(review(*agreed[:2]), [], agreed, KNOWN, True)
    assert objection
    assert len(objection.taken_out) == 3
    assert find_objection(review(), [], agreed[:2], KNOWN, True) is None


def test_document_is_set_aside_if_half_of_its_annotations_mark_text_again_as_new_types() -> None:
    right = [span(word, "party") for word in WORDS]
    again = [dataclasses.replace(each, type=f"new {number}") for number, each in enumerate(right[:3])]
    assert find_objection(review(*right[:4], *again), [], [], KNOWN, True) is None
    assert find_objection(review(*right[:2], *again[:2]), [], [], KNOWN, True) is None
    assert (
        find_objection(review(*(dataclasses.replace(each, type="new") for each in right)), [], [], KNOWN, True) is None
    )
    objection = find_objection(review(*right[:3], *again), [], [], KNOWN, True)
    assert objection
    assert describe_objection(objection, "5", {}) == (
        "3 of 6 annotations mark as 3 new types what is marked as a known type, too."
    )


def test_contradiction_is_named_by_types_and_counts() -> None:
    swapped = review(span("Acme", "type 1"), span("Leeds", "type 1"), span("Mayday", "type 1"))
    objection = find_objection(swapped, READ[:1] + READ[2:], [span(word, "party") for word in WORDS[:3]], KNOWN, True)
    assert objection
    assert describe_objection(objection, "5", {"type 0": 14, "type 2": 1}) == (
        "It marks as type 1 what 14 learned documents call type 0; it marks as type 1 what 1 learned document calls "
        "type 2; it leaves out what 0 learned documents call type 3; it takes out 3 of 3 annotations that two "
        "reviewers agreed on; 4 of 4 values that version 5 reads in it are not marked as it reads them."
    )


def test_annotations_of_two_reviewers_are_agreed_on_even_if_the_second_changed_nothing(session: Session) -> None:
    set_principal(session, "key")
    document = add_document(session)
    spans = [marked(value, reviewer="ana") for value in ("Bell", "Acme Ltd", "100 €")]
    replace_annotations(session, document, spans)
    answer_jobs(session, [add_read_job(session, JobType.FEEDBACK, document.id).id], outcome())

    def object_to_nothing_marked() -> dict[str, str]:
        replace_annotations(session, document, [])
        job = add_read_job(session, JobType.FEEDBACK, document.id)
        return explain_objections(session, load_training_set(session, [job.id]), {document.id: []}, "1", KNOWN, True)

    assert object_to_nothing_marked() == {}
    replace_annotations(session, document, spans)
    answer_jobs(session, [add_read_job(session, JobType.FEEDBACK, document.id).id], outcome())
    replace_annotations(session, document, [marked(each.value, reviewer="bruno") for each in spans])
    reason = "It takes out 3 of 3 annotations that two reviewers agreed on."
    assert object_to_nothing_marked() == {document.id: reason}


def test_job_is_answered_if_all_its_documents_are_set_aside_and_otherwise_learns_the_others(session: Session) -> None:
    alone, first = add_feedback(session, "a")
    second = add_document(session, "b").id
    both = add_job(session, JobType.TRAINING_RUN, [first, second], "tester")
    take_lessons(session, [both.id], "run")
    assert set_aside_documents(session, [alone.id, both.id], {first: "It is wrong."}, "run") == [both.id]
    session.expire_all()
    assert alone.outcome
    assert alone.outcome.decision == Decision.NOT_PROMOTED
    assert alone.outcome.reason.startswith("Set aside: It is wrong. Change the annotations and send them again")
    assert [data.document_id for data in load_training_set(session, [both.id]).training] == [second]
    answer_jobs(session, [both.id], outcome())
    assert list_learned_lessons(session) == {second: both.id}
    assert list_contradictions(session, [both.id]) == {both.id: {first: "It is wrong."}}
    for state, document_id in ((DocumentState.SET_ASIDE, first), (DocumentState.LEARNED, second)):
        found, _ = list_documents(session, 0, 10, select_documents_in(state))
        assert [document.id for document in found] == [document_id]


def test_what_is_set_aside_is_learned_if_a_person_insists(session: Session, prefect_away: Launcher) -> None:
    document = add_document(session)
    add_annotation(session, document, marked("Bell"))
    session.flush()
    other = add_document(session, "other")
    for name in ("date", "city", "amount"):
        add_annotation(session, other, marked("Bell", name))
    session.flush()
    job = add_job(session, JobType.TRAINING_RUN, [document.id, other.id], "tester")
    take_lessons(session, [job.id], "run")
    set_aside_documents(session, [job.id], {document.id: "It is wrong."}, "run")
    answer_jobs(session, [job.id], outcome())
    session.expire_all()
    again = teach_again(session, prefect_away, job, "ana")
    assert again.insisted_by == "ana"
    take_lessons(session, [again.id], "second run")
    training_set = load_training_set(session, [again.id])
    assert [data.document_id for data in training_set.training] == [document.id]
    assert (training_set.insisted, training_set.insisting) == ({document.id: "ana"}, ["ana"])
    read = {document.id: [Entity(name, "Bell", 22, 26, 1) for name in ("date", "city", "amount")]}
    assert explain_objections(session, training_set, read, "1", KNOWN, True) == {}
    assert explain_objections(session, dataclasses.replace(training_set, insisted={}), read, "1", KNOWN, True)
