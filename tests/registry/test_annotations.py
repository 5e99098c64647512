from typing import Any

import pytest
from sqlmodel import Session

from registry.annotations import (
    add_annotation,
    get_latest_annotations,
    list_annotations,
    replace_annotations,
    update_annotation,
)
from registry.errors import ConflictError, InvalidInputError, WrongValueError
from registry.jobs import add_job
from registry.lessons import retract_lessons, store_review, take_lessons
from registry.outcome import Decision, Outcome
from registry.tables import AnnotationBase, AnnotationStatus, Document, JobType

TEXT = "Acme Ltd paga 100 € à Bell"


def marked(value: str, name: str = "party", **fields: Any) -> AnnotationBase:
    start = TEXT.index(value)
    return AnnotationBase(type=name, value=value, start=start, end=start + len(value), **fields)


def add_document(session: Session, name: str = "a") -> Document:
    document = Document(
        filename=name, media_type="text/plain", sha256=name, size_bytes=1, page_count=1,
        character_count=len(TEXT), text=TEXT,
    )  # fmt: skip
    session.add(document)
    session.flush()
    return document


def test_value_that_is_not_at_its_offsets_is_refused_with_what_is_there(session: Session) -> None:
    wrong = AnnotationBase(type="party", value="Acme", start=0, end=8)
    with pytest.raises(WrongValueError, match="'Acme' is not the text at 0 to 8") as raised:
        add_annotation(session, add_document(session), wrong)
    assert raised.value.text == "Acme Ltd"


def test_end_behind_the_text_is_refused(session: Session) -> None:
    with pytest.raises(InvalidInputError, match="26 characters"):
        add_annotation(session, add_document(session), AnnotationBase(type="party", value="Bell", start=22, end=27))


def test_same_type_on_same_span_conflicts_and_other_type_does_not(session: Session) -> None:
    document = add_document(session)
    add_annotation(session, document, marked("Bell"))
    add_annotation(session, document, marked("Bell", "payee"))
    with pytest.raises(ConflictError, match="already marks"):
        add_annotation(session, document, marked("Bell"))


def test_update_onto_another_annotation_conflicts(session: Session) -> None:
    document = add_document(session)
    add_annotation(session, document, marked("Bell"))
    other = add_annotation(session, document, marked("Acme Ltd"))
    with pytest.raises(ConflictError):
        update_annotation(session, document, other, marked("Bell"))


def test_replacing_keeps_the_id_of_unchanged_spans_and_deletes_the_rest(session: Session) -> None:
    document = add_document(session)
    stays = add_annotation(session, document, marked("Bell")).id
    add_annotation(session, document, marked("Acme Ltd"))
    replace_annotations(session, document, [marked("Bell", notes="checked"), marked("100 €", "amount")])
    found = list_annotations(session, document.id)
    assert [(annotation.value, annotation.notes) for annotation in found] == [("100 €", None), ("Bell", "checked")]
    assert found[1].id == stays


def test_latest_annotations_are_the_approved_ones(session: Session) -> None:
    first, second = add_document(session, "a"), add_document(session, "b")
    add_annotation(session, first, marked("Bell"))
    add_annotation(session, first, marked("Acme Ltd", status=AnnotationStatus.REJECTED))
    latest = get_latest_annotations(session, [second.id, first.id])
    assert latest[second.id].annotations == []
    (annotation,) = latest[first.id].annotations
    assert (annotation.start, annotation.end, annotation.type, annotation.revision) == (22, 26, "party", 1)


def test_type_invented_after_the_last_feedback_was_not_reviewed(session: Session) -> None:
    old, new = add_document(session, "a"), add_document(session, "b")
    add_annotation(session, old, marked("Bell"))
    session.flush()
    add_job(session, JobType.FEEDBACK, [old.id], "tester")
    add_annotation(session, new, marked("100 €", "amount"))
    session.flush()
    add_job(session, JobType.FEEDBACK, [new.id], "tester")
    latest = get_latest_annotations(session, [old.id, new.id])
    assert (latest[old.id].reviewed_types, latest[new.id].reviewed_types) == (["party"], ["amount", "party"])


def test_learned_type_that_nobody_uses_any_more_counts_as_reviewed(session: Session) -> None:
    first, second = add_document(session, "a"), add_document(session, "b")
    add_annotation(session, first, marked("Bell"))
    session.flush()
    job = add_job(session, JobType.FEEDBACK, [first.id], "tester")
    take_lessons(session, [job.id], "run")
    job.outcome = Outcome(decision=Decision.PROMOTED, reason="", flow_run_id="run")
    replace_annotations(session, first, [])
    assert get_latest_annotations(session, [second.id])[second.id].reviewed_types == ["party"]


@pytest.mark.parametrize("is_withdrawn", [True, False])
def test_learned_type_that_nobody_uses_any_more_counts_as_reviewed_after_a_partial_lesson(
    session: Session, *, is_withdrawn: bool
) -> None:
    first, second = add_document(session, "a"), add_document(session, "b")
    for document, name, looked_for in ((first, "fee", None), (second, "party", ["party"])):
        add_annotation(session, document, marked("Bell", name))
        session.flush()
        job = add_job(session, JobType.FEEDBACK, [document.id], "tester")
        store_review(session, job.id, looked_for)
        job.outcome = Outcome(decision=Decision.PROMOTED, reason="", flow_run_id="run")
    replace_annotations(session, first, [])
    if is_withdrawn:
        retract_lessons(session, first.id, ["fee"])
    reviewed_types = get_latest_annotations(session, [second.id])[second.id].reviewed_types
    assert reviewed_types == (["party"] if is_withdrawn else ["fee", "party"])
