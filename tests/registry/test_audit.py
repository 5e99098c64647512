import pytest
from sqlalchemy import Engine
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Session

from registry.annotations import add_annotation, list_annotations, replace_annotations
from registry.audit import delete_old_values, list_entries, set_principal
from registry.keys import Scope, add_key, list_keys
from registry.tables import Annotation
from tests.registry.test_annotations import add_document, marked


def actions(session: Session) -> list[tuple[str, str, str]]:
    session.flush()
    return [(entry.principal, entry.action, entry.entity) for entry in list_entries(session, 0, 50)[0][::-1]]


def test_every_write_is_recorded_with_its_principal_and_the_old_values(session: Session) -> None:
    document = add_document(session)
    set_principal(session, "ana")
    annotation = add_annotation(session, document, marked("Bell", notes="first"))
    session.commit()
    set_principal(session, "rui")
    replace_annotations(session, document, [marked("Bell", notes="second")])
    session.commit()
    replace_annotations(session, document, [])
    session.commit()
    entries, total = list_entries(session, 0, 50, document.id)
    assert total == 3
    assert [(entry.principal, entry.action) for entry in entries] == [
        ("rui", "deleted"), ("rui", "changed"), ("ana", "created"),
    ]  # fmt: skip
    deleted, changed, created = (entry.before for entry in entries)
    assert created is None
    assert changed
    assert changed["notes"] == "first"
    assert "value" not in changed
    assert deleted
    assert (deleted["value"], deleted["notes"], deleted["start"]) == ("Bell", "second", 22)
    assert {entry.entity_id for entry in entries} == {annotation.id}


def test_annotation_that_stays_the_same_is_not_a_change(session: Session) -> None:
    document = add_document(session)
    add_annotation(session, document, marked("Bell"))
    session.commit()
    set_principal(session, "ana")
    replace_annotations(session, document, [marked("Bell")])
    session.commit()
    assert actions(session) == []
    assert list_annotations(session, document.id)[0].revision == 1


def test_neither_texts_nor_hashes_of_keys_are_recorded(session: Session) -> None:
    document = add_document(session)
    add_key(session, "reader", [Scope.READ])
    session.commit()
    set_principal(session, "ana")
    session.delete(document)
    assert actions(session) == [("ana", "deleted", "document")]
    before = list_entries(session, 0, 1)[0][0].before
    assert before
    assert not {"text"} & set(before)
    session.delete(list_keys(session)[0])
    session.flush()
    before = list_entries(session, 0, 1)[0][0].before
    assert before
    assert before["name"] == "reader"
    assert "secret_hash" not in before


def test_old_values_of_a_deleted_document_are_deleted_and_the_entries_remain(session: Session) -> None:
    document = add_document(session)
    set_principal(session, "ana")
    add_annotation(session, document, marked("Bell"))
    session.commit()
    replace_annotations(session, document, [])
    session.commit()
    delete_old_values(session, document.id)
    session.commit()
    session.expire_all()
    entries, total = list_entries(session, 0, 50, document.id)
    assert total == 2
    assert [entry.before for entry in entries] == [None, None]


def test_newer_annotation_is_not_overwritten(engine: Engine, session: Session) -> None:
    annotation = add_annotation(session, add_document(session), marked("Bell"))
    session.commit()
    with Session(engine) as other:
        seen = other.get(Annotation, annotation.id)
        assert seen
        annotation.notes = "mine"
        session.add(annotation)
        session.commit()
        seen.notes = "yours"
        other.add(seen)
        with pytest.raises(StaleDataError):
            other.commit()
